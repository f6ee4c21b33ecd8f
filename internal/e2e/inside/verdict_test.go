package inside

import (
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/e2e"
	"github.com/sandrun/sandrun/internal/hungry"
	"github.com/sandrun/sandrun/report"
)

const mib = 1 << 20

// Caps of most tests here: a machine of 600 MiB, two workers of 128 MiB and 64 tasks.
var small = []string{
	"--profile", "t3.small", "--memory", "600M", "--swap", "0", "--pids", "400", "-n", "2",
	"--worker-memory", "128M", "--worker-swap", "0", "--worker-pids", "64",
}

// over is more than a worker of small may have, under is less.
const (
	over  = "200M"
	under = "60M"
)

// Each row is one worker, alone in its run.
func TestVerdicts(t *testing.T) {
	tests := []struct {
		name    string
		words   string
		verdict report.Verdict
		code    int // of the worker, which the command passes on; -1 is any
	}{
		{"passes", "anon " + under, report.Passed, 0},
		{"exit status", "exit 7", report.Failed, 7},
		{"own exit of 137", "exit 137", report.Failed, 137},
		{"own signal", "die 15", report.Signaled, 128 + 15},
		{"own SIGKILL", "die 9", report.Signaled, 128 + 9},
		{"ENOMEM without a kill", "enomem 1G", report.Failed, hungry.ExitNoMem},

		{"anonymous", "anon " + over, report.Memory, 128 + 9},
		{"in one burst", "burst " + over, report.Memory, 128 + 9},
		{"heap", "heap " + over, report.Memory, 128 + 9},
		{"slow leak", "leak 2M 5ms " + over, report.Memory, 128 + 9},
		{"huge pages", "thp " + over, report.Memory, 128 + 9},
		{"locked", "mlock " + over, report.Memory, 128 + 9},
		{"shared mapping", "shared " + over, report.Memory, 128 + 9},
		{"memfd", "memfd " + over, report.Memory, 128 + 9},
		{"/dev/shm", "shm " + over, report.Memory, 128 + 9},
		{"tmpfs", "tmpfs /run " + over, report.Memory, 128 + 9},
		{"pipe buffers", "pipes " + over, report.Memory, 128 + 9},
		{"socket buffers", "sockets " + over, report.Memory, 128 + 9},
		{"would swap, and may not", "swap " + over + " 3", report.Memory, 128 + 9},
		{"sum of its children", "times 4 hold 30s anon 40M", report.Memory, 128 + 9},
		{"child", "child anon " + over, report.Memory, 128 + 9},
		{"grandchild in a session of its own", "setsid hold 30s anon " + over, report.Memory, 128 + 9},
		{"deaf to SIGTERM", "deaf anon " + over, report.Memory, 128 + 9},

		{"fork bomb", "forks 5000 20s", report.Pids, hungry.ExitRefused},
		{"fork bomb that grows", "forktree 6 4", report.Pids, -1},
		{"thread bomb", "threads 500", report.Pids, 2},
		{"many forks under the cap", "forks 40 200ms", report.Passed, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			r := e2e.Script(t, small, "w x "+tt.words)
			r.Want(t, "x", string(tt.verdict))
			if tt.code >= 0 {
				r.WantCode(t, tt.code)
			}
			w := r.Worker(t, "x")
			checkEvidence(t, w)
			if took := time.Since(start); took > 25*time.Second {
				t.Errorf("took %v: what the worker left was not killed with it", took)
			}
		})
	}
}

// checkEvidence holds a verdict of small against the counters it must rest on.
func checkEvidence(t *testing.T, w report.Worker) {
	t.Helper()
	u := w.Usage
	if u.Limits != (report.Limits{Memory: 128 * mib, Pids: 64}) {
		t.Errorf("limits %+v", u.Limits)
	}
	// The kernel lets a dying process have a page or two above the cap.
	if u.MemoryPeak > 129*mib || u.PidsPeak > 64 || u.SwapPeak > 0 {
		t.Errorf("peaks above the caps: %+v", u)
	}
	switch w.Verdict {
	case report.Memory:
		if w.Evidence.Limit != "memory.max" || w.Evidence.Value != 128*mib || w.Evidence.Needs < 128*mib {
			t.Errorf("evidence %+v", w.Evidence)
		}
		if u.Counters["memory.events.local:oom"] == 0 || u.Counters["memory.events:oom_kill"] == 0 {
			t.Errorf("counters %v: a memory verdict without the kernel's word", u.Counters)
		}
		if u.MemoryPeak < 120*mib {
			t.Errorf("peak %d MiB, want about the cap", u.MemoryPeak/mib)
		}
		// The kernel's own figures, when it gave them, are those of the kill.
		if sum := u.Split.Anon + u.Split.Shmem + u.Split.File + u.Split.Kernel; u.Split.Source == "kernel log" && sum < 110*mib {
			t.Errorf("split %+v explains %d MiB of the cap", u.Split, sum/mib)
		}
	case report.Pids:
		if w.Evidence.Limit != "pids.max" || w.Evidence.Value != 64 || w.Evidence.Refused == 0 {
			t.Errorf("evidence %+v", w.Evidence)
		}
		if u.PidsPeak != 64 {
			t.Errorf("peak of %d tasks, want the cap", u.PidsPeak)
		}
	default:
		if u.Counters["memory.events:oom_kill"] != 0 {
			t.Errorf("%s, but counters %v", w.Verdict, u.Counters)
		}
	}
}

// The kind of memory is told apart, by the kernel's own figures.
func TestSplit(t *testing.T) {
	// The kernel reports at most ten kills in five seconds (mm/oom_kill.c, oom_rs).
	time.Sleep(6 * time.Second)
	r := e2e.Script(t, small, `
		w anon   anon  200M
		w shmem  memfd 200M
		w kernel pipes 200M`)
	r.Want(t, "anon", "memory", "shmem", "memory", "kernel", "memory")
	for label, part := range map[string]func(report.Split) int64{
		"anon":   func(s report.Split) int64 { return s.Anon },
		"shmem":  func(s report.Split) int64 { return s.Shmem },
		"kernel": func(s report.Split) int64 { return s.Kernel },
	} {
		s := r.Worker(t, label).Usage.Split
		if s.Source != "kernel log" || part(s) < 100*mib {
			t.Errorf("%s: %+v, want more than 100 MiB of that kind", label, s)
		}
	}
}

func TestTwoAtOnce(t *testing.T) {
	r := e2e.Script(t, small, `
		w a after 500ms burst 200M &
		w b after 500ms burst 200M &
		wait
		w after anon 60M`)
	r.Want(t, "a", "memory", "b", "memory", "after", "passed")
	r.WantCode(t, 1) // the script says 0
}

// A neighbour of a hog does not notice it.
func TestNeighbourLives(t *testing.T) {
	r := e2e.Script(t, small, `
		w good hold 3s anon 100M &
		for i in 1 2 3; do w hog$i burst 200M; done
		wait $!`)
	r.Want(t, "good", "passed", "hog1", "memory", "hog2", "memory", "hog3", "memory")
}

// The sum of workers and command is over the machine's memory, each worker under
// its own cap.
func TestMachineFull(t *testing.T) {
	t.Setenv("FIFO", t.TempDir()+"/up")
	r := e2e.Script(t, []string{
		"--profile", "t3.small", "--memory", "400M", "--swap", "0", "-n", "1",
		"--worker-memory", "200M", "--worker-swap", "0",
	}, `
		mkfifo "$FIFO"
		w victim both anon 150M , say up sleep 1m >"$FIFO" &
		read line <"$FIFO"
		"$HUNGRY" anon 300M
		wait $!`)
	r.Want(t, "victim", "machine")
	w := r.Worker(t, "victim")
	if w.Usage.Counters["memory.events.local:oom"] != 0 || w.Evidence.Cgroup != "machine" || w.Evidence.Value != 400*mib {
		t.Errorf("evidence %+v, counters %v", w.Evidence, w.Usage.Counters)
	}
	if len(w.Evidence.Biggest) == 0 || w.Evidence.Biggest[0].Label != "victim" {
		t.Errorf("biggest %+v", w.Evidence.Biggest)
	}
	if r.Code == 0 {
		t.Error("exit status 0 although the machine was full")
	}
}

// The guest itself runs out of memory, no cap of the run is met.
func TestHostFull(t *testing.T) {
	r := e2e.Script(t, []string{
		"--profile", "t3.2xlarge", "--memory", "8G", "-n", "1", "--worker-memory", "6G", "--worker-swap", "0",
	}, `w victim burst 5G; w after anon 20M`)
	r.Want(t, "victim", "host", "after", "passed")
	w := r.Worker(t, "victim")
	if c := w.Usage.Counters; c["memory.events.local:oom"] != 0 || c["memory.events:oom_kill"] == 0 {
		t.Errorf("counters %v", c)
	}
}

func TestOutsideKill(t *testing.T) {
	t.Setenv("FIFO", t.TempDir()+"/up")
	r := e2e.Script(t, small, `
		mkfifo "$FIFO"
		"$SANDRUN" worker --label victim -- "$HUNGRY" both anon 20M , say up sleep 1m >"$FIFO" &
		read line <"$FIFO"
		kill -9 $!
		wait $!
		echo "status $?"`)
	r.Want(t, "victim", "signaled")
	if w := r.Worker(t, "victim"); w.Signal != "SIGKILL" {
		t.Errorf("signal %q", w.Signal)
	}
	r.WantCode(t, 0) // no cap killed it, and the command said 0
	if r.Stdout != "status 137\n" {
		t.Errorf("the command saw %q", r.Stdout)
	}
}

func TestTimeout(t *testing.T) {
	r := e2e.Script(t, append([]string{"--timeout", "500ms"}, small...), `
		w slow sleep 1m
		w deaf deaf sleep 1m
		w stopped die 19
		w left orphan sleep 1m
		w quick sleep 1ms`)
	r.Want(t, "slow", "timeout", "deaf", "timeout", "stopped", "timeout", "left", "passed", "quick", "passed")
	r.WantCode(t, 1)
	if left := r.Worker(t, "left").Evidence.Leftover; left == 0 {
		t.Error("the orphan is not told of")
	}
}

func TestSwap(t *testing.T) {
	flags := []string{
		"--profile", "t3.small", "--memory", "600M", "--swap", "128M", "-n", "1",
		"--worker-memory", "128M", "--worker-swap", "64M",
	}
	r := e2e.Script(t, flags, `
		w fits  swap 160M 2
		w over  swap 300M 2`)
	r.Want(t, "fits", "passed", "over", "swap")
	if peak := r.Worker(t, "fits").Usage.SwapPeak; peak < 20*mib || peak > 64*mib {
		t.Errorf("fits: %d MiB of swap, want about 32", peak/mib)
	}
	over := r.Worker(t, "over")
	if peak := over.Usage.SwapPeak; peak < 60*mib || peak > 64*mib {
		t.Errorf("over: %d MiB of swap, want the cap of 64", peak/mib)
	}
	if over.Evidence.Limit != "memory.swap.max" || over.Evidence.Value != 64*mib || over.Evidence.Needs < 192*mib {
		t.Errorf("over: evidence %+v", over.Evidence)
	}
}

// With swap in the machine and none for the worker, not a page goes there.
func TestSwapOfNone(t *testing.T) {
	r := e2e.Script(t, small, `w x swap 200M 2`)
	r.Want(t, "x", "memory")
	if peak := r.Worker(t, "x").Usage.SwapPeak; peak != 0 {
		t.Errorf("%d bytes of swap", peak)
	}
}

// A worker that reads far more than its cap from files lives: its page cache is
// given back, and nobody else's.
func TestPageCacheReader(t *testing.T) {
	// Go's own programs are read: they are on every machine that runs this test.
	r := e2e.Script(t, []string{
		"--profile", "t3.small", "--memory", "300M", "-n", "1", "--worker-memory", "48M", "--worker-swap", "0",
	}, `root=$(go env GOROOT); w reader cache 250M "$root/bin" "$root/pkg/tool"`)
	r.Want(t, "reader", "passed")
	r.WantCode(t, 0)
	if w := r.Worker(t, "reader"); w.Usage.Counters["memory.events:max"] == 0 {
		t.Errorf("the cap was never met: peak %d MiB, counters %v", w.Usage.MemoryPeak/mib, w.Usage.Counters)
	}
}

// What a worker put on a tmpfs outlives it and is the machine's then; the next worker
// has its whole cap.
func TestTmpfsIsNotInherited(t *testing.T) {
	t.Setenv("DIR", t.TempDir())
	r := e2e.Script(t, small, `
		mount -t tmpfs none "$DIR"
		"$SANDRUN" worker --label writer -- dd if=/dev/zero of="$DIR/file" bs=1M count=100 2>/dev/null
		w next anon 100M
		umount "$DIR"`)
	r.Want(t, "writer", "passed", "next", "passed")
}
