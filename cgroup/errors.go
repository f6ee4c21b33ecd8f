package cgroup

import (
	"errors"
	"fmt"
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

var errTreeClosed = errors.New("the tree is closed")

// A NameError is a run id or leaf name that cannot be a cgroup's name.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q cannot name a cgroup: use 1 to 128 of A-Z a-z 0-9 - _ . : @, not only dots", e.Name)
}

// A DelegationError is the failure of every way to a subtree, with each reason.
// It matches ErrNoDelegation.
type DelegationError struct{ Refused []Refusal }

func (e *DelegationError) Error() string {
	reasons := make([]string, len(e.Refused))
	for i, r := range e.Refused {
		reasons[i] = r.Via + ": " + r.Err.Error()
	}
	return ErrNoDelegation.Error() + ": " + strings.Join(reasons, "; ")
}

// Is matches ErrNoDelegation.
func (e *DelegationError) Is(target error) bool { return target == ErrNoDelegation }

// Unwrap gives each way's reason.
func (e *DelegationError) Unwrap() []error {
	errs := make([]error, len(e.Refused))
	for i, r := range e.Refused {
		errs[i] = r.Err
	}
	return errs
}
