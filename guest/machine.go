package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A Machine is an ephemeral kernel that runs one command over the host's own
// file system and is gone when the command ends. It mirrors exec.Cmd: fill in
// the exported fields, Start it, Wait for it. A Machine cannot be used twice.
//
// Each of Stdin, Stdout and Stderr that is a terminal on the host is a terminal
// inside (the three share one pseudo-terminal); the others are byte-exact pipes.
type Machine struct {
	// Kernel is the path of the User Mode Linux executable, and Modules the
	// directory of its modules (*.ko), which may be empty unless Overlay is set.
	Kernel, Modules string

	// Init is the absolute path of a program whose first act is guest.Init. It
	// becomes process 1 of the guest; the running executable will usually do.
	Init string

	// Args is the command; Args[0] is the absolute path of its program. Env and
	// Dir are its environment and working directory. It runs as user 0 of the
	// guest, with the rights on files of the user who started the machine.
	Args []string
	Env  []string
	Dir  string

	// Stdin, Stdout and Stderr; nil is the null device.
	Stdin, Stdout, Stderr *os.File

	// Memory is the guest's memory in bytes, Swap the size of its swap space in
	// bytes (0: none).
	Memory, Swap int64

	// Overlay runs the command over a throw-away layer: the host's file system
	// is the guest's root for reading only, and every write is gone at the end.
	Overlay bool

	// Network says what the guest can reach beyond its own loopback interface.
	Network NetworkMode

	// BootTimeout bounds the time from Start to the first sign of life of the
	// guest's process 1 (0: 20 seconds); Timeout bounds the whole life of the
	// machine (0: no bound).
	BootTimeout, Timeout time.Duration

	// RunDir is an existing directory that belongs to this run alone. All that
	// the machine writes on the host is below it, and Wait removes what it made.
	RunDir string

	// Forward lists host signals that the machine catches from Start to Wait and
	// passes to the command. SIGWINCH needs no mention: a terminal is followed.
	Forward []os.Signal

	// Warn, when set, is told what does not stop the machine but may spoil the
	// run, such as a guest larger than the host's available memory.
	Warn func(message string)
}

// A NetworkMode says what a guest can reach.
type NetworkMode string

// The network modes.
const (
	NetworkLoopback NetworkMode = ""      // only itself
	NetworkPasst    NetworkMode = "passt" // the host's network, through the passt program
)

// An ExitError says that the command ended with a status other than 0.
type ExitError struct {
	// Code is the exit status, 128+n when signal n ended the command, 126 when
	// it could not be executed and 127 when it was not found.
	Code int
	// Reason says why the command was not started, with codes 126 and 127.
	Reason string
}

func (e *ExitError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Start boots the machine and returns once the kernel runs; Wait must follow.
// When ctx is done the guest is told to power off, and killed if it does not.
func (m *Machine) Start(ctx context.Context) error { return errors.ErrUnsupported }

// Wait returns when the command has ended and nothing of the machine is left:
// nil for status 0, an *ExitError for another status, and any other error when
// the machine itself failed; that error carries the end of its console.
func (m *Machine) Wait() error { return errors.ErrUnsupported }

// Signal sends a signal to the command's process, and to that one only.
func (m *Machine) Signal(s os.Signal) error { return errors.ErrUnsupported }

// Console returns the last part of what the guest kernel printed.
func (m *Machine) Console() string { return "" }
