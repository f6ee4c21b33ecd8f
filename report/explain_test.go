package report

import (
	"testing"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func exit(n int) *int { return &n }

func TestExplain(t *testing.T) {
	caps := Limits{Memory: 768 * mib, Swap: 64 * mib, Pids: 256}
	for _, test := range []struct {
		name string
		w    Worker
		want string
	}{
		{"memory", Worker{
			Verdict: Memory, Test: "TestLoadModel",
			Evidence: Evidence{Limit: "memory.max", Cgroup: "worker-0001", Value: 768 * mib, Needs: 768 * mib},
			Usage:    Usage{Limits: caps, Split: Split{Anon: 741 * mib, Kernel: 3 * mib, Source: "kernel log"}},
		}, "its own memory.max 768 MiB · anon 741 MiB · in TestLoadModel · needs ≥ 768 MiB"},
		{"memory, sampled, of two kinds", Worker{
			Verdict:  Memory,
			Evidence: Evidence{Limit: "memory.max", Value: 768 * mib, Needs: 768 * mib},
			Usage:    Usage{Limits: caps, Split: Split{Anon: 100 * mib, Shmem: 600 * mib, File: mib, Source: "sampled"}},
		}, "its own memory.max 768 MiB · shmem 600 MiB + anon 100 MiB when last sampled · needs ≥ 768 MiB"},
		{"memory, nothing more known", Worker{Verdict: Memory, Usage: Usage{Limits: caps}}, "its own memory.max 768 MiB"},
		{"swap", Worker{
			Verdict: Swap, Test: "TestSwap",
			Evidence: Evidence{Limit: "memory.swap.max", Value: 64 * mib, Needs: 832 * mib},
			Usage:    Usage{Limits: caps, Split: Split{Anon: 760 * mib, Source: "kernel log"}},
		}, "its own memory.swap.max 64 MiB, then memory.max 768 MiB · anon 760 MiB · in TestSwap · needs ≥ 832 MiB"},
		{"swap of 0", Worker{
			Verdict:  Swap,
			Evidence: Evidence{Limit: "memory.swap.max"},
			Usage:    Usage{Limits: Limits{Memory: 768 * mib}},
		}, "its own memory.swap.max 0, then memory.max 768 MiB"},
		{"pids", Worker{
			Verdict: Pids, Exit: exit(2),
			Evidence: Evidence{Limit: "pids.max", Value: 256, Refused: 10412, Leftover: 255},
			Usage:    Usage{Limits: caps},
		}, "its own pids.max 256 · fork refused 10,412 times · 255 processes outlived it and were killed"},
		{
			"pids, once",
			Worker{Verdict: Pids, Evidence: Evidence{Refused: 1, Leftover: 1}, Usage: Usage{Limits: caps}},
			"its own pids.max 256 · fork refused 1 time · 1 process outlived it and was killed",
		},
		{"machine", Worker{
			Verdict: Machine, Test: "TestA",
			Evidence: Evidence{Limit: "memory.max", Cgroup: "machine", Value: 1741 * mib, Biggest: []Share{
				{ID: "worker-0001", Label: "example/a", Memory: 700 * mib},
				{ID: "worker-0002", Memory: 650 * mib},
				{ID: "worker-0003", Label: "c", Memory: 9 * mib},
				{ID: "worker-0004", Label: "d", Memory: 8 * mib},
			}},
		}, "the machine's memory.max 1.7 GiB was full · biggest: example/a 700 MiB, worker-0002 650 MiB, c 9 MiB · in TestA"},
		{"machine, tasks", Worker{
			Verdict:  Machine,
			Evidence: Evidence{Limit: "pids.max", Cgroup: "machine", Value: 1000, Refused: 3},
		}, "the machine's pids.max 1,000 was reached · fork refused 3 times"},
		{"machine, nothing more known", Worker{Verdict: Machine}, "the machine's memory.max was full"},
		{
			"host",
			Worker{Verdict: Host, Usage: Usage{Split: Split{Anon: 300 * mib, Source: "sampled"}}},
			"an out-of-memory killer above the run, no cap of it · anon 300 MiB when last sampled",
		},
		{
			"host, known",
			Worker{Verdict: Host, Evidence: Evidence{Limit: "memory.max", Cgroup: "/user.slice", Value: 2 * gib}},
			"an out-of-memory killer above the run, memory.max 2 GiB of /user.slice",
		},
		{
			"timeout",
			Worker{Verdict: Timeout, Test: "TestSleep", Wall: Seconds(30 * time.Second)},
			"--timeout, still running after 30 s · in TestSleep",
		},
		{"signaled", Worker{Verdict: Signaled, Signal: "SIGKILL", Test: "TestA"}, "SIGKILL, not sent by sandrun · in TestA"},
		{"signaled, unnamed", Worker{Verdict: Signaled}, "a signal, not sent by sandrun"},
		{"failed", Worker{Verdict: Failed, Exit: exit(2)}, "exit status 2"},
		{"failed by its own signal", Worker{Verdict: Failed, Signal: "SIGSEGV"}, "SIGSEGV"},
		{"passed", Worker{Verdict: Passed, Exit: exit(0), Evidence: Evidence{Leftover: 2}}, "exit status 0 · 2 processes outlived it and were killed"},
		{"canceled", Worker{Verdict: Canceled}, "the run was over before it"},
		{"exited", Worker{Verdict: Exited}, "it ended, and this kernel does not say how"},
		{"error", Worker{Verdict: Error}, "sandrun could not do its job"},
		{"a verdict of a later version", Worker{Verdict: "cpu"}, "cpu"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.w.Evidence.Why = "what was said before"
			if got := Explain(test.w); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestExplainEvery makes sure that no verdict is left without words.
func TestExplainEvery(t *testing.T) {
	for _, v := range []Verdict{Passed, Failed, Signaled, Memory, Swap, Pids, Machine, Host, Timeout, Canceled, Error, Exited} {
		if got := Explain(Worker{Verdict: v}); got == "" || got == string(v) {
			t.Errorf("Explain has no words for %q: %q", v, got)
		}
	}
}
