package report

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// t3small is a run of twelve workers of which two were killed.
func t3small() *Run {
	caps := Limits{Memory: 768 * mib, Pids: 256}
	run := &Run{
		Schema: Schema, ID: "4f2a9c", Version: "0.1.0",
		Command: []string{"go", "test", "./..."}, Dir: "/src/example",
		Start:       time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Wall:        Seconds(9800 * time.Millisecond),
		Kernel:      Kernel{Where: "guest", Release: "7.2.0-sandrun", Delegation: "root"},
		Profile:     Profile{Name: "t3.small", VCPUs: 2, Memory: 1990 * mib, Budget: 1990 * mib, Pids: 1000, Workers: 1, WorkerLimits: caps},
		Machine:     Usage{Limits: Limits{Memory: 1990 * mib, Pids: 1000}, MemoryPeak: 1434 * mib, PidsPeak: 300, SwapPeak: -1},
		Main:        Usage{MemoryPeak: 600 * mib, SwapPeak: -1},
		CommandExit: 1, Exit: 1,
	}
	for i := range 10 {
		run.Workers = append(run.Workers, Worker{
			ID: fmt.Sprintf("worker-%04d", i+1), Label: fmt.Sprintf("example/good%d", i+1), Adapter: "go test",
			Verdict: Passed, Exit: exit(0), Evidence: Evidence{Why: "exit status 0"},
		})
	}
	run.Workers = append(run.Workers,
		Worker{
			ID: "worker-0011", Label: "example/hog", Adapter: "go test", Argv: []string{"/tmp/b/hog.test", "-test.paniconexit0"}, Pid: 4711,
			Verdict: Memory, Signal: "SIGKILL", Test: "TestLoadModel",
			Evidence: Evidence{Limit: "memory.max", Cgroup: "worker-0011", Value: 768 * mib, Needs: 768 * mib},
			Usage: Usage{
				Limits: caps, MemoryPeak: 768 * mib, SwapPeak: -1, PidsPeak: 9, CPU: Seconds(1500 * time.Millisecond),
				Split:    Split{Anon: 741 * mib, Kernel: 4 * mib, Source: "kernel log"},
				Counters: map[string]int64{"memory.events.local:oom": 1, "memory.events:oom_kill": 2},
			},
			Start: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Wall: Seconds(2100 * time.Millisecond), Waited: Seconds(12500 * time.Microsecond),
		},
		Worker{
			ID: "worker-0012", Label: "example/bomb", Adapter: "go test", Verdict: Pids, Exit: exit(1),
			Evidence: Evidence{Limit: "pids.max", Cgroup: "worker-0012", Value: 256, Refused: 10412},
			Usage:    Usage{Limits: caps},
		},
	)
	for i := range run.Workers {
		if w := &run.Workers[i]; w.Evidence.Why == "" {
			w.Evidence.Why = Explain(*w)
		}
	}
	return run
}

// quiet is a run in which nothing went wrong.
func quiet() *Run {
	run := t3small()
	run.Kernel = Kernel{Where: "host", Release: "6.8.0-45-generic", Delegation: "systemd-user"}
	run.Workers, run.CommandExit, run.Exit = run.Workers[:3], 0, 0
	return run
}

// everything is a run with one worker of every verdict, and with names made to harm.
func everything() *Run {
	run := t3small()
	caps := Limits{Memory: 768 * mib, Swap: 64 * mib, Pids: 256}
	run.Profile.Swap = 2 * gib
	run.Profile.VCPUs = 0.5
	run.Wall = Seconds(185 * time.Second)
	run.CommandExit, run.Exit = 0, 1
	run.Notes = []string{
		"the guest kernel has one CPU: times are not comparable with the host's",
		"GOFLAGS of \x1b[31mthe environment\x1b[0m has -exec=strace, which is kept: go test gets no workers.",
	}
	run.Workers = []Worker{
		{Label: "example/passed", Verdict: Passed},
		{Label: "example/failed", Verdict: Failed, Exit: exit(1)},
		{Label: "github.com/example/project/internal/storage/replication/integration", Verdict: Memory, Test: "TestReplicationAcrossThreeRegions/with_a_slow_follower", Usage: Usage{Limits: caps, Split: Split{Anon: 500 * mib, Shmem: 200 * mib, Source: "sampled"}}, Evidence: Evidence{Limit: "memory.max", Value: 768 * mib, Needs: 768 * mib}},
		{Label: "pytest tests/test_a.py", Verdict: Swap, Usage: Usage{Limits: caps}, Evidence: Evidence{Limit: "memory.swap.max", Value: 64 * mib, Needs: 832 * mib}},
		{Label: "evil\x1b]0;owned\x07\u202e\nname", Verdict: Pids, Test: "Test\x1b[2J", Usage: Usage{Limits: caps}, Evidence: Evidence{Refused: 3}},
		{Label: "example/日本語", Verdict: Machine, Evidence: Evidence{Limit: "memory.max", Value: 1741 * mib, Biggest: []Share{{Label: "example/a", Memory: 700 * mib}, {Label: "example/b", Memory: 650 * mib}}}},
		{Label: "example/host", Verdict: Host},
		{Label: "example/slow", Verdict: Timeout, Wall: Seconds(30 * time.Second)},
		{Label: "example/signaled", Verdict: Signaled, Signal: "SIGKILL"},
		{ID: "worker-0010", Verdict: Error, Evidence: Evidence{Why: "write memory.max=805306368 to worker-0010: permission denied (run 'sandrun doctor')"}},
		{Label: "example/canceled", Verdict: Canceled},
		{Label: "example/exited", Verdict: Exited},
	}
	return run
}

func many() *Run {
	run := t3small()
	run.Workers = nil
	for i := range 30 {
		run.Workers = append(run.Workers, Worker{Label: fmt.Sprintf("example/p%02d", i), Verdict: Timeout, Wall: Seconds(time.Second)})
	}
	return run
}

func TestWriteGolden(t *testing.T) {
	none := t3small()
	none.Workers, none.Machine.MemoryPeak, none.Kernel.Release = nil, -1, ""
	none.Notes = []string{"no worker was placed: go test reads GOFLAGS, and the command may have reset it"}
	for _, test := range []struct {
		name string
		run  *Run
		o    Options
	}{
		{"t3small", t3small(), Options{}},
		{"t3small-80", t3small(), Options{Width: 80}},
		{"t3small-colour", t3small(), Options{Width: 100, Color: true}},
		{"quiet", quiet(), Options{Width: 80}},
		{"none", none, Options{}},
		{"everything", everything(), Options{}},
		{"everything-120", everything(), Options{Width: 120}},
		{"everything-80", everything(), Options{Width: 80}},
		{"everything-40", everything(), Options{Width: 40}},
		{"everything-ascii", everything(), Options{Width: 100, ASCII: true}},
		{"many", many(), Options{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var buf bytes.Buffer
			if err := Write(&buf, test.run, test.o); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", test.name+".golden")
			if *update {
				if err := os.WriteFile(golden, buf.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), buf.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// TestWriteAsShown holds the summary against the one that the project shows its users.
func TestWriteAsShown(t *testing.T) {
	const want = `sandrun  t3.small · 2 vCPU · 1.9 GiB · swap 0 · guest kernel 7.2
  ✗ example/hog    memory   its own memory.max 768 MiB · anon 741 MiB · in TestLoadModel · needs ≥ 768 MiB
  ✗ example/bomb   pids     its own pids.max 256 · fork refused 10,412 times
  12 workers: 10 passed, 2 killed · machine peak 1.4 of 1.9 GiB · 9.8 s
`
	var buf bytes.Buffer
	if err := Write(&buf, t3small(), Options{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, buf.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWriteColour proves that colour adds nothing but colour, and only when asked.
func TestWriteColour(t *testing.T) {
	for _, run := range []*Run{t3small(), quiet(), everything()} {
		for _, width := range []int{0, 20, 80, 200} {
			var plain, coloured bytes.Buffer
			if err := errors.Join(Write(&plain, run, Options{Width: width}), Write(&coloured, run, Options{Width: width, Color: true})); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsRune(plain.String(), '\x1b') {
				t.Errorf("width %d: an escape without colour: %q", width, plain.String())
			}
			if !strings.ContainsRune(coloured.String(), '\x1b') {
				t.Errorf("width %d: no colour in %q", width, coloured.String())
			}
			if diff := cmp.Diff(plain.String(), stripSGR(coloured.String())); diff != "" {
				t.Errorf("width %d: colour changes the text:\n%s", width, diff)
			}
		}
	}
}

// stripSGR takes out "\x1b[...m", and nothing else that begins with an escape.
func stripSGR(s string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return r != ';' && (r < '0' || r > '9') })
		if end < 0 || rest[end] != 'm' {
			b.WriteString("\x1b[")
			s = rest
			continue
		}
		s = rest[end+1:]
	}
}

// TestWriteDoesNotChange the run that it renders.
func TestWriteDoesNotChange(t *testing.T) {
	run := everything()
	if err := errors.Join(Write(new(bytes.Buffer), run, Options{Width: 40, Color: true}), WriteJSON(new(bytes.Buffer), run)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything(), run); diff != "" {
		t.Error(diff)
	}
}

func TestOptionsFor(t *testing.T) {
	for _, test := range []struct {
		name     string
		environ  []string
		terminal bool
		want     Options
	}{
		{"a terminal", []string{"TERM=xterm", "LANG=en_US.UTF-8"}, true, Options{Color: true, Width: 80}},
		{"no terminal", []string{"TERM=xterm"}, false, Options{}},
		{"NO_COLOR", []string{"NO_COLOR=1"}, true, Options{Width: 80}},
		{"empty NO_COLOR", []string{"NO_COLOR="}, true, Options{Color: true, Width: 80}},
		{"dumb", []string{"TERM=dumb"}, true, Options{Width: 80}},
		{"no locale", nil, false, Options{}},
		{"utf8", []string{"LC_CTYPE=C.utf8", "LANG=C"}, false, Options{}},
		{"latin", []string{"LANG=de_DE.ISO-8859-1"}, false, Options{ASCII: true}},
		{"LC_ALL wins", []string{"LC_ALL=C", "LANG=en_US.UTF-8"}, false, Options{ASCII: true}},
	} {
		if got := OptionsFor(test.environ, test.terminal, 80); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestMiddle(t *testing.T) {
	for _, test := range []struct {
		in    string
		width int
		want  string
	}{
		{"example/a", 9, "example/a"},
		{"example/abc", 9, "ex…le/abc"},
		{"example/abc", 1, "…"},
		{"example/abc", 0, ""},
		{"日本語日本語", 7, "日…本語"},
	} {
		if got := middle(test.in, test.width); got != test.want {
			t.Errorf("middle(%q, %d) = %q, want %q", test.in, test.width, got, test.want)
		}
	}
}

func FuzzMiddle(f *testing.F) {
	f.Add("example/日本語/e\u0301", 5)
	f.Fuzz(func(t *testing.T, s string, width int) {
		s, width = Printable(s), min(max(width%100, 0), 99)
		if got := middle(s, width); lipgloss.Width(got) > width {
			t.Errorf("middle(%q, %d) = %q is %d wide", s, width, got, lipgloss.Width(got))
		}
	})
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteReportsError(t *testing.T) {
	if err := Write(failing{}, quiet(), Options{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write to a closed file says %v", err)
	}
}
