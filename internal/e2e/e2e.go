// Package e2e runs the built sandrun as its users do, for tests of the whole.
//
// The tests are in two packages: inside has those that run as root in a guest
// kernel, where sandrun makes its leaves itself; outside has those that start on
// this machine and let sandrun bring its guest.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/hungry"
	"github.com/sandrun/sandrun/report"
)

// Patience bounds each command of a test: a hang should fail, and say where.
const Patience = 4 * time.Minute

// Root is the directory of the module, found from the package's own directory,
// which is where go test starts a test.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod in %s or above it", dir)
		}
	}
}

// Build makes bin/sandrun what the sources say. It runs on the host, where the
// build cache is; the guest sees the same file.
func Build() error {
	root, err := Root()
	if err != nil {
		return err
	}
	out, err := exec.Command("make", "--silent", "--no-print-directory", "-C", root, "build").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	return nil
}

// Sandrun is the path of the built binary.
func Sandrun(t testing.TB) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "bin", "sandrun")
}

// A Run is one finished sandrun.
type Run struct {
	Code   int // its exit status, 128+n for signal n
	Stdout string
	Stderr string
	Record *report.Run // what --json wrote; nil if nothing was written
}

// A Process is a sandrun that runs.
type Process struct {
	Cmd    *exec.Cmd
	Stdout bytes.Buffer // unless Cmd.Stdout was set to something else
	Stderr bytes.Buffer

	t      testing.TB
	record string
	cancel context.CancelFunc
}

// New makes `sandrun exec FLAGS --json FILE -- ARGV`; the caller may change Cmd
// before Start. In its environment $SANDRUN is the binary and $HUNGRY this test
// binary as a hungry program.
func New(t testing.TB, flags []string, argv ...string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, record: filepath.Join(t.TempDir(), "run.json")}
	args := append([]string{"exec", "--json", p.record}, flags...)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	p.cancel = cancel
	t.Cleanup(cancel)
	p.Cmd = exec.CommandContext(ctx, Sandrun(t), append(append(args, "--"), argv...)...)
	p.Cmd.Env = append(os.Environ(), hungry.Env(), "GOTRACEBACK=none", "HUNGRY="+self, "SANDRUN="+Sandrun(t))
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	p.Cmd.WaitDelay = 10 * time.Second
	return p
}

// Start starts it.
func (p *Process) Start() {
	p.t.Helper()
	if err := p.Cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits for it and reads its record.
func (p *Process) Wait() Run {
	p.t.Helper()
	err := p.Cmd.Wait()
	p.cancel()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%v: %v\n%s", p.Cmd.Args, err, &p.Stderr)
	}
	r := Run{Code: Code(p.Cmd.ProcessState), Stdout: p.Stdout.String(), Stderr: p.Stderr.String()}
	b, err := os.ReadFile(p.record)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r
	case err != nil:
		p.t.Fatal(err)
	}
	r.Record = &report.Run{}
	if err := json.Unmarshal(b, r.Record); err != nil {
		p.t.Fatalf("%s: %v", p.record, err)
	}
	return r
}

// Exec runs `sandrun exec` to its end.
func Exec(t testing.TB, flags []string, argv ...string) Run {
	t.Helper()
	p := New(t, flags, argv...)
	p.Start()
	return p.Wait()
}

// Prelude defines, for a POSIX shell, w LABEL WORDS: a worker that is the hungry
// program WORDS.
const Prelude = `w() { label=$1; shift; "$SANDRUN" worker --label "$label" -- "$HUNGRY" "$@"; }
`

// Script runs `sandrun exec` over a shell script that may use w.
func Script(t testing.TB, flags []string, script string) Run {
	t.Helper()
	return Exec(t, flags, "sh", "-c", Prelude+script)
}

// Code is an exit status as a shell tells it: 128+n for signal n.
func Code(s *os.ProcessState) int {
	if ws := s.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// Worker is the one worker with the label.
func (r Run) Worker(t testing.TB, label string) report.Worker {
	t.Helper()
	if r.Record == nil {
		t.Fatalf("no record was written; exit %d\n%s", r.Code, clip(r.Stderr))
	}
	var found []report.Worker
	for _, w := range r.Record.Workers {
		if w.Label == label {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d workers are called %q, want 1; all: %s\n%s", len(found), label, r.verdicts(), clip(r.Stderr))
	}
	return found[0]
}

// Want checks verdicts: pairs of a label and a verdict, all workers of the run.
func (r Run) Want(t testing.TB, pairs ...string) {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		w := r.Worker(t, pairs[i])
		if string(w.Verdict) != pairs[i+1] {
			t.Errorf("%s: %s (%s), want %s; counters %v\n%s", w.Label, w.Verdict, w.Evidence.Why, pairs[i+1], w.Usage.Counters, clip(r.Stderr))
		}
	}
	if got := len(r.Record.Workers); got != len(pairs)/2 {
		t.Errorf("%d workers, want %d: %s", got, len(pairs)/2, r.verdicts())
	}
}

// WantCode checks the exit status of sandrun.
func (r Run) WantCode(t testing.TB, code int) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s", r.Code, code, clip(r.Stdout), clip(r.Stderr))
	}
}

func (r Run) verdicts() string {
	if r.Record == nil {
		return "no record"
	}
	var b strings.Builder
	for _, w := range r.Record.Workers {
		fmt.Fprintf(&b, "%s %s; ", w.Label, w.Verdict)
	}
	return b.String()
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
	}
	return s
}
