package supervisor

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/report"
)

const mib = 1 << 20

func exited(code int) syscall.WaitStatus           { return syscall.WaitStatus(code << 8) }
func killedBy(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }
func memoryEvents(max, oom, kill int64) cgroup.MemoryEvents {
	return cgroup.MemoryEvents{Max: max, OOM: oom, OOMKill: kill}
}

// A verdict goes by the kernel's counters, never by the signal: every case below
// that was killed ended by SIGKILL.
func TestJudge(t *testing.T) {
	limits := cgroup.Limits{Memory: 768 * mib, Pids: 256}
	swapping := cgroup.Limits{Memory: 768 * mib, Swap: 64 * mib, Pids: 256}
	for _, tt := range []struct {
		name     string
		f        facts
		verdict  report.Verdict
		evidence report.Evidence
	}{
		{"exit status 0", facts{known: true}, report.Passed, report.Evidence{}},
		{"exit status 7", facts{known: true, status: exited(7)}, report.Failed, report.Evidence{}},
		{
			"kill -9 from outside",
			facts{known: true, status: killedBy(syscall.SIGKILL)},
			report.Signaled,
			report.Evidence{},
		},
		{
			"its own cap",
			facts{known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{
				Memory: memoryEvents(40, 1, 2), MemoryLocal: memoryEvents(40, 1, 2),
			}},
			report.Memory,
			report.Evidence{Limit: "memory.max", Cgroup: "leaf", Value: 768 * mib, Needs: 768 * mib},
		},
		{
			"its own cap ended a child, and the worker said 0",
			facts{known: true, events: cgroup.Events{Memory: memoryEvents(9, 1, 1), MemoryLocal: memoryEvents(9, 1, 1)}},
			report.Memory,
			report.Evidence{Limit: "memory.max", Cgroup: "leaf", Value: 768 * mib, Needs: 768 * mib},
		},
		{
			"memory.max was met, reclaim was enough",
			facts{known: true, events: cgroup.Events{Memory: memoryEvents(900, 0, 0), MemoryLocal: memoryEvents(900, 0, 0)}},
			report.Passed,
			report.Evidence{},
		},
		{
			"its swap cap refused, then memory.max",
			facts{limits: swapping, known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{
				Memory: memoryEvents(40, 1, 1), MemoryLocal: memoryEvents(40, 1, 1), Swap: cgroup.SwapEvents{Max: 12, Fail: 12},
			}},
			report.Swap,
			report.Evidence{Limit: "memory.swap.max", Cgroup: "leaf", Value: 64 * mib, Needs: 832 * mib},
		},
		{
			"no swap was allowed, so none was refused",
			facts{known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{
				Memory: memoryEvents(40, 1, 1), MemoryLocal: memoryEvents(40, 1, 1), Swap: cgroup.SwapEvents{Max: 3, Fail: 3},
			}},
			report.Memory,
			report.Evidence{Limit: "memory.max", Cgroup: "leaf", Value: 768 * mib, Needs: 768 * mib},
		},
		{
			"the machine was full",
			func() facts {
				f := facts{known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{Memory: memoryEvents(0, 0, 1)}}
				f.machine.ooms, f.machine.limits = 1, cgroup.Limits{Memory: 1700 * mib}
				f.biggest = []report.Share{{ID: "worker-0002", Memory: 600 * mib}}
				return f
			}(),
			report.Machine,
			report.Evidence{Limit: "memory.max", Cgroup: "machine", Value: 1700 * mib, Biggest: []report.Share{{ID: "worker-0002", Memory: 600 * mib}}},
		},
		{
			"no cap of ours",
			facts{known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{Memory: memoryEvents(0, 0, 1)}},
			report.Host,
			report.Evidence{Cgroup: "host"},
		},
		{
			"a cap above the run",
			facts{
				known: true, status: killedBy(syscall.SIGKILL), events: cgroup.Events{Memory: memoryEvents(0, 0, 1)},
				log: &cgroup.OOMReport{Memcg: "/user.slice"},
			},
			report.Host,
			report.Evidence{Limit: "memory.max", Cgroup: "/user.slice"},
		},
		{
			"forks refused, and it failed",
			facts{known: true, status: exited(2), events: cgroup.Events{Pids: cgroup.PidsEvents{Max: 10412}, PidsLocal: cgroup.PidsEvents{Max: 10412}}},
			report.Pids,
			report.Evidence{Limit: "pids.max", Cgroup: "leaf", Value: 256, Refused: 10412},
		},
		{
			"forks refused, and it coped",
			facts{known: true, events: cgroup.Events{Pids: cgroup.PidsEvents{Max: 3}, PidsLocal: cgroup.PidsEvents{Max: 3}}},
			report.Passed,
			report.Evidence{Refused: 3},
		},
		{
			"the machine's pids.max refused, not its own",
			facts{known: true, status: exited(2), events: cgroup.Events{Pids: cgroup.PidsEvents{Max: 5}}},
			report.Failed,
			report.Evidence{},
		},
		{
			"forks refused, before Linux 6.11",
			facts{known: true, status: exited(2), events: cgroup.Events{Pids: cgroup.PidsEvents{Max: 5}, PidsLocal: cgroup.PidsEvents{Max: cgroup.Absent}}},
			report.Pids,
			report.Evidence{Limit: "pids.max", Cgroup: "leaf", Value: 256, Refused: 5},
		},
		{
			"time-out",
			facts{known: true, status: killedBy(syscall.SIGKILL), stopped: fmt.Errorf("%w, 5s", errWorkerTimeout)},
			report.Timeout,
			report.Evidence{Why: "the worker's time-out, 5s"},
		},
		{
			"a cap fired before the time-out's kill",
			facts{known: true, status: killedBy(syscall.SIGKILL), stopped: errWorkerTimeout, events: cgroup.Events{
				Memory: memoryEvents(40, 1, 1), MemoryLocal: memoryEvents(40, 1, 1),
			}},
			report.Memory,
			report.Evidence{Limit: "memory.max", Cgroup: "leaf", Value: 768 * mib, Needs: 768 * mib},
		},
		{
			"interrupted",
			facts{known: true, status: killedBy(syscall.SIGINT), asked: errInterrupted},
			report.Canceled,
			report.Evidence{Why: "the run was interrupted"},
		},
		{
			"it passed while the run was being interrupted",
			facts{known: true, stopped: errInterrupted},
			report.Passed,
			report.Evidence{},
		},
		{
			"the program could not be executed",
			facts{known: true, status: exited(127), exec: errors.New("execute nope: no such file or directory")},
			report.Failed,
			report.Evidence{Why: "execute nope: no such file or directory"},
		},
		{
			"the kernel does not say how it ended",
			facts{},
			report.Exited,
			report.Evidence{Why: "exit status not visible on this kernel (Linux 6.15 shows it)"},
		},
		{
			"sandrun failed",
			facts{failure: errors.New("write pids.max: permission denied")},
			report.Error,
			report.Evidence{Why: "write pids.max: permission denied"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.f.limits == (cgroup.Limits{}) {
				tt.f.limits = limits
			}
			verdict, evidence := judge(tt.f)
			if verdict != tt.verdict {
				t.Errorf("verdict %q, want %q", verdict, tt.verdict)
			}
			if diff := cmp.Diff(tt.evidence, evidence); diff != "" {
				t.Errorf("evidence (-want +got):\n%s", diff)
			}
		})
	}
}
