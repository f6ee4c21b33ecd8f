package guest

import (
	"errors"
	"fmt"
	"strings"
)

// What ends a machine before its command has.
var (
	// ErrBoot says that the guest gave no sign of life within BootTimeout.
	ErrBoot = errors.New("guest did not come up")
	// ErrTimeout says that the machine ran for longer than Timeout.
	ErrTimeout = errors.New("guest ran into its time-out")
	// ErrDied says that the guest's kernel ended and its command's status with it:
	// a kernel panic, a kill from outside.
	ErrDied = errors.New("guest kernel died")
	// ErrInit says that the guest's process 1 could not prepare the guest.
	ErrInit = errors.New("guest could not be prepared")
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

// A MachineError says why a machine failed, and how its console ended.
type MachineError struct {
	Err     error
	Console string // the last part of what the kernel printed
}

// consoleLines is how much of the console goes into a message.
const consoleLines = 20

func (e *MachineError) Error() string {
	if strings.TrimSpace(e.Console) == "" {
		return e.Err.Error() + "; its console is empty"
	}
	return fmt.Sprintf("%v; its console ended with:\n%s", e.Err, lastLines(e.Console, consoleLines))
}

func (e *MachineError) Unwrap() error { return e.Err }
