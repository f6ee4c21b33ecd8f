package inside

import (
	"bufio"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/e2e"
)

// startUntil starts a script and returns once it has written n lines "up".
func startUntil(t *testing.T, n int, script string) *e2e.Process {
	t.Helper()
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+script)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	p.Cmd.Stdout = w
	// A process group of its own: the test's is not to be signaled.
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Start()
	_ = w.Close()
	lines := bufio.NewScanner(r)
	for i := range n {
		if !lines.Scan() || lines.Text() != "up" {
			_ = p.Cmd.Process.Kill()
			t.Fatalf("line %d is %q, want up: %v\n%s", i, lines.Text(), lines.Err(), &p.Stderr)
		}
	}
	return p
}

// endsWithin waits and fails if that takes too long.
func endsWithin(t *testing.T, p *e2e.Process, d time.Duration) e2e.Run {
	t.Helper()
	start := time.Now()
	r := p.Wait()
	if took := time.Since(start); took > d {
		t.Errorf("took %v to end, want at most %v", took, d)
	}
	return r
}

// The first interrupt, and a SIGTERM or SIGHUP, reach the command: it ends, and so do its workers.
func TestOneInterrupt(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{
		syscall.SIGINT: 128 + 2, syscall.SIGTERM: 128 + 15, syscall.SIGHUP: 128 + 1,
	} {
		t.Run(sig.String(), func(t *testing.T) {
			p := startUntil(t, 2, `
				w a say up sleep 1m &
				w b deaf say up sleep 1m &
				wait`)
			if err := p.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			r := endsWithin(t, p, 5*time.Second)
			r.Want(t, "a", "canceled", "b", "canceled")
			r.WantCode(t, code)
		})
	}
}

// A command that handles the interrupt ends in its own way.
func TestInterruptIsTheCommandsOwn(t *testing.T) {
	p := startUntil(t, 1, `
		trap 'echo bye >&2; exit 9' INT
		w a say up sleep 1m &
		while :; do wait; done`)
	if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r := endsWithin(t, p, 5*time.Second)
	r.WantCode(t, 9)
	if !strings.HasPrefix(r.Stderr, "bye\n") {
		t.Errorf("stderr %q", r.Stderr)
	}
}

// What is deaf to the first interrupt is killed by the second.
func TestTwoInterrupts(t *testing.T) {
	p := startUntil(t, 1, `
		trap '' INT TERM HUP
		w a deaf say up setsid sleep 1m
		sleep 60`)
	if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if err := p.Cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("it ended with the first interrupt: %v", err)
	}
	if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r := endsWithin(t, p, 5*time.Second)
	r.Want(t, "a", "canceled")
	r.WantCode(t, 128+9)
}

// One who leans on ^C does not keep sandrun from clearing up.
func TestManyInterrupts(t *testing.T) {
	for range 5 {
		p := startUntil(t, 1, `w a deaf say up sleep 1m`)
		ended := make(chan struct{})
		go func() {
			for {
				select {
				case <-ended:
					return
				default:
					_ = p.Cmd.Process.Signal(syscall.SIGINT) // it may have ended
					time.Sleep(200 * time.Microsecond)
				}
			}
		}()
		r := endsWithin(t, p, 10*time.Second)
		close(ended)
		r.Want(t, "a", "canceled")
	}
	wantNothingLeft(t, t.TempDir())
}

// What sandrun was started to ignore, it and the command ignore: nohup(1).
func TestIgnoredHangup(t *testing.T) {
	p := e2e.New(t, small, "sh", "-c", `kill -HUP $PPID; sleep 0.3; kill -HUP $$; echo alive`)
	p.Cmd.Args = append([]string{"sh", "-c", `trap '' HUP; exec "$@"`, "sh", p.Cmd.Path}, p.Cmd.Args[1:]...)
	p.Cmd.Path = "/bin/sh"
	p.Start()
	r := p.Wait()
	r.WantCode(t, 0)
	if r.Stdout != "alive\n" {
		t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
	}
}

// Whoever reads the summary may go away: the status and the record stay, and
// nothing is left behind.
func TestSummaryReaderGoesAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	p := e2e.New(t, small, "sh", "-c", "exit 3")
	p.Cmd.Stderr = w
	p.Start()
	_ = w.Close()
	run := p.Wait()
	run.WantCode(t, 3)
	if run.Record == nil {
		t.Error("no record was written")
	}
	wantNothingLeft(t, t.TempDir())
}
