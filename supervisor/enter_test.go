package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
)

// fakePlace is a leaf that notes who comes and who is killed.
type fakePlace struct {
	Place
	added, kills int
}

func (p *fakePlace) Add(pid int) error { p.added = pid; return nil }
func (p *fakePlace) Kill() error       { p.kills++; return nil }

// connected is a shim's connection: both its ends.
func connected(t *testing.T) (supervisor, shim *net.UnixConn) {
	t.Helper()
	address := &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(t.TempDir(), "sock")}
	l, err := net.ListenUnix("unixpacket", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if shim, err = net.DialUnix("unixpacket", nil, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shim.Close() })
	if supervisor, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = supervisor.Close() })
	return supervisor, shim
}

// sleeper is a worker whose process lives until the test ends.
func sleeper(t *testing.T) (*worker, *fakePlace) {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pidfd, err := sys.OpenPidfd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pidfd.Close() })
	place := &fakePlace{}
	return &worker{place: place, pidfd: pidfd, record: report.Worker{Pid: cmd.Process.Pid}}, place
}

// A worker that enters its leaf while the run ends is killed there, by itself when
// the run's own kill came before it was in; it never starts.
func TestEnterAsTheRunEnds(t *testing.T) {
	for _, before := range []bool{false, true} {
		ctx, stop := context.WithCancelCause(t.Context())
		stop(errCommandEnded)
		conn, shim := connected(t)
		w, place := sleeper(t)
		if before {
			w.stop(errCommandEnded)
			place.kills = 0
		}
		if err := new(Supervisor).enter(ctx, conn, w, nil); err != nil {
			t.Error(err)
		}
		if place.added != w.record.Pid || place.kills != 1 || !errors.Is(w.stopped, errCommandEnded) {
			t.Errorf("process %d added, %d kills, stopped by %v", place.added, place.kills, w.stopped)
		}
		_ = conn.Close()
		if n, err := shim.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Errorf("the shim was told %d bytes, %v: want nothing", n, err)
		}
	}
}

// A shim that is being killed closes its connection a moment before it has ended:
// its status tells the verdict, and sandrun has not failed.
func TestEnterADyingShim(t *testing.T) {
	conn, shim := connected(t)
	_ = shim.Close()
	w, _ := sleeper(t)
	if err := new(Supervisor).enter(t.Context(), conn, w, nil); err != nil {
		t.Error(err)
	}
}

// The pid of a shim that died in the backlog may be another process's by now.
func TestRequestOfADeadShim(t *testing.T) {
	tr := newTrial(t, "")
	tr.Workers = 0
	tr.Classify = func(r sandbox.Request) Placement {
		t.Errorf("%+v was taken for a request of process %d", r, os.Getpid())
		return Placement{}
	}
	s := tr.open(t)
	defer func() {
		if err := errors.Join(s.listener.Close(), s.oomLog.Close()); err != nil {
			t.Error(err)
		}
	}()
	shim, err := net.Dial("unixpacket", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	_, err = shim.Write([]byte("1\x00worker\x00\x00/\x00true\x00"))
	if err := errors.Join(err, shim.Close()); err != nil {
		t.Fatal(err)
	}
	conn, err := s.listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := s.converse(t.Context(), conn); !errors.Is(err, errWentAway) {
		t.Errorf("error %v, want %v", err, errWentAway)
	}
}

// Whoever connects and says nothing does not hold up the end of the run.
func TestRunEndsBesideASilentConnection(t *testing.T) {
	tr := newTrial(t, `sleep 0.2; exit 3`)
	s := tr.open(t)
	silent, err := net.Dial("unixpacket", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	const patience = 5 * time.Second
	timer := time.AfterFunc(patience, func() { _ = silent.Close() })
	got, err := s.Run(t.Context(), tr.command(s))
	if err != nil {
		t.Fatal(err)
	}
	if !timer.Stop() {
		t.Errorf("the run waited for a process that is none of its own")
	}
	_ = silent.Close()
	if got.Exit != 3 {
		t.Errorf("exit %d, want 3", got.Exit)
	}
}

// A cleaner of temporary files may take the lock of a run that lives.
func TestCollectSparesARunThatLostItsLock(t *testing.T) {
	tr := newTrial(t, "")
	s := tr.open(t)
	defer func() {
		if err := errors.Join(s.listener.Close(), s.oomLog.Close()); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Remove(filepath.Join(tr.dir.Path, lockName)); err != nil {
		t.Fatal(err)
	}
	cleared, err := Collect(t.Context())
	if len(cleared) > 0 || err != nil {
		t.Errorf("cleared %v, %v: want nothing", cleared, err)
	}
	if _, err := os.Stat(s.Socket()); err != nil {
		t.Error(err)
	}
}

// The command's own end for memory is told with what was full.
func TestRunCommandKilledForMemory(t *testing.T) {
	for words, memory := range map[string]int64{
		"the machine's memory.max 100 MiB was full": 100 * mib,
		"no cap of this run":                        64 << 30,
	} {
		tr := newTrial(t, `$HUNGRY burst 8G; exit 0`)
		tr.machine.Memory = memory
		tr.Reserve = memory
		got := tr.run(t)
		if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], words) || got.Exit != 1 {
			t.Errorf("exit %d, notes %q; want 1 and one that says %q", got.Exit, got.Notes, words)
		}
	}
}

// The error for a socket's path that the kernel would not take names the way out.
func TestNewRefusesALongPath(t *testing.T) {
	_, err := New(Config{Dir: "/" + strings.Repeat("x", 103)})
	if err == nil || !strings.Contains(err.Error(), "109 bytes") || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("error %v, want the length and what to set", err)
	}
}
