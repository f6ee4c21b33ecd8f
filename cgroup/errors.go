package cgroup

import (
	"errors"
	"strings"
)

var (
	// ErrNoDelegation is matched by the error of Open when no way gave a subtree.
	ErrNoDelegation = errors.New("no delegated cgroup v2 subtree")
	// ErrNotSupported is matched by errors that say this kernel or this machine
	// lacks a feature, as opposed to "could not tell".
	ErrNotSupported = errors.New("not supported")
)

// A FileError is a cgroup file or directory that could not be used as asked.
type FileError struct {
	Op    string // "read", "write", "create", "remove", "open", "read back"
	Path  string // absolute path of the file or directory
	Value string // what was written, or was to be held; empty when nothing was
	Err   error
	Fix   string // the way out, in words; may be empty
}

// Error names the place, the value and the way out.
func (e *FileError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	b.WriteByte(' ')
	b.WriteString(e.Path)
	if e.Value != "" {
		b.WriteByte('=')
		b.WriteString(e.Value)
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	if e.Fix != "" {
		b.WriteString(" (")
		b.WriteString(e.Fix)
		b.WriteByte(')')
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *FileError) Unwrap() error { return e.Err }
