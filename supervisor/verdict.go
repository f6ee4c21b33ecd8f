package supervisor

import (
	"errors"
	"syscall"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/report"
)

// Why the supervisor itself ended a worker, or the run.
var (
	errWorkerTimeout = errors.New("the worker's time-out")
	errRunTimeout    = errors.New("the run's time-out")
	errInterrupted   = errors.New("the run was interrupted")
	errCommandEnded  = errors.New("the command ended before this worker")
)

// facts are what a verdict is given on: all of them read after the leaf was empty
// and before it was removed.
type facts struct {
	failure error              // sandrun could not do its job for this worker
	exec    error              // the program could not be executed
	stopped error              // why the supervisor killed it; nil when it did not
	asked   error              // why the run was asked to end before it did; nil when it was not
	status  syscall.WaitStatus // of the worker's own process
	known   bool               // status is known
	limits  cgroup.Limits
	events  cgroup.Events
	machine struct {
		limits cgroup.Limits
		ooms   int64 // memory.events.local:oom of the machine since the worker began
	}
	log     *cgroup.OOMReport // the kernel's own report of the kill, when it was seen
	biggest []report.Share    // of the machine
	left    int               // processes that were killed with the leaf
}

// judge gives the verdict and its evidence. It never goes by the signal alone:
// SIGKILL is what a cap, cgroup.kill and `kill -9` all send. A cap that fired
// comes first, since what followed (an exit code, an interrupt) followed from it.
//
// memory.events is hierarchical, memory.events.local is not: a local oom says
// that the leaf's own memory.max was met; an oom_kill without one says that a
// cgroup above, or the whole machine, was full
// (Documentation/admin-guide/cgroup-v2.rst, "memory.events").
func judge(f facts) (report.Verdict, report.Evidence) {
	e := report.Evidence{Leftover: f.left}
	own := f.events.MemoryLocal.OOM > 0
	passed := f.known && f.status.Exited() && f.status.ExitStatus() == 0
	switch {
	case f.failure != nil:
		e.Why = f.failure.Error()
		return report.Error, e

	case f.events.Memory.OOMKill > 0 && own:
		e.Limit, e.Cgroup, e.Value = "memory.max", "leaf", f.limits.Memory
		e.Needs = f.limits.Memory
		if f.limits.Swap > 0 && f.events.Swap.Max > 0 {
			e.Limit, e.Value = "memory.swap.max", f.limits.Swap
			e.Needs += f.limits.Swap
			return report.Swap, e
		}
		return report.Memory, e

	case f.events.Memory.OOMKill > 0 && f.machine.ooms > 0:
		e.Limit, e.Cgroup, e.Value = "memory.max", "machine", f.machine.limits.Memory
		e.Biggest = f.biggest
		return report.Machine, e

	case f.events.Memory.OOMKill > 0:
		e.Cgroup = "host"
		if f.log != nil && f.log.Memcg != "" {
			e.Limit, e.Cgroup = "memory.max", f.log.Memcg
		}
		return report.Host, e

	case f.stopped != nil && f.bySIGKILL():
		e.Why = f.stopped.Error()
		if errors.Is(f.stopped, errWorkerTimeout) || errors.Is(f.stopped, errRunTimeout) {
			return report.Timeout, e
		}
		return report.Canceled, e

	case f.asked != nil && !passed:
		e.Why = f.asked.Error()
		return report.Canceled, e
	}

	refused := max(f.events.Pids.Max, 0)
	if f.events.PidsLocal.Max != cgroup.Absent {
		refused = f.events.PidsLocal.Max
	}
	e.Refused = refused
	switch {
	case refused > 0 && !passed:
		e.Limit, e.Cgroup, e.Value = "pids.max", "leaf", f.limits.Pids
		return report.Pids, e
	case passed:
		return report.Passed, e
	case !f.known:
		e.Why = sys.ErrStatusUnknown.Error()
		return report.Exited, e
	case f.status.Signaled():
		return report.Signaled, e
	case f.exec != nil:
		e.Why = f.exec.Error()
	}
	return report.Failed, e
}

// bySIGKILL reports whether the supervisor's kill can have ended the worker: its own
// end may have come first, and be seen later.
func (f facts) bySIGKILL() bool {
	return !f.known || f.status.Signaled() && f.status.Signal() == syscall.SIGKILL
}
