package supervisor

import (
	"context"

	"github.com/sandrun/sandrun/cgroup"
)

// A Place is where one worker runs: its caps hold before the worker enters.
// *cgroup.Leaf is a place on this kernel; admission, verdicts and the report
// know no more of it than this.
type Place interface {
	Name() string
	Limits() cgroup.Limits
	// Add moves a process in.
	Add(pid int) error
	Memory() (int64, error) // in use now, bytes
	Usage() (cgroup.Usage, error)
	Events() (cgroup.Events, error)
	Peaks() (cgroup.Peaks, error)
	// WaitEmpty waits until no process is left, and reports whether that came before
	// the context was done.
	WaitEmpty(ctx context.Context) (bool, error)
	Procs() ([]int, error)
	Kill() error
	// Remove kills what is left, waits until it is gone and removes the place. It
	// bounds the wait itself: a task in uninterruptible sleep can hold a place for ever.
	Remove(ctx context.Context) error
}
