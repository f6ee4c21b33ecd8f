package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fails runs a machine that must fail for the reason want, with the console's end
// in the message, and returns the message.
func fails(t *testing.T, m *Machine, want error, console string) string {
	t.Helper()
	stdout, _, err := run(t, m)
	var failure *MachineError
	if !errors.Is(err, want) || !errors.As(err, &failure) {
		t.Fatalf("%v, want %v; stdout %q", err, want, stdout)
	}
	if !strings.Contains(err.Error(), console) {
		t.Errorf("no %q in: %v", console, err)
	}
	return err.Error()
}

func TestGuestThatDoesNotComeUp(t *testing.T) {
	m := newMachine(t, "/bin/true")
	m.Init = filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(m.Init, []byte("#!/bin/sh\necho waiting for nothing\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.BootTimeout = 2 * time.Second // the boot of a busy host is in it
	start := time.Now()
	fails(t, m, ErrBoot, "waiting for nothing")
	if d := time.Since(start); d > m.BootTimeout+5*time.Second {
		t.Errorf("it took %v to give up after %v", d, m.BootTimeout)
	}
}

func TestGuestWithoutInit(t *testing.T) {
	m := newMachine(t, "/bin/true")
	m.Init = filepath.Join(t.TempDir(), "missing")
	fails(t, m, ErrDied, "missing failed (error -2)")
}

func TestInitThatEnds(t *testing.T) {
	m := newMachine(t, "/bin/true")
	m.Init = "/bin/true"
	fails(t, m, ErrDied, "Attempted to kill init")
}

func TestKernelPanic(t *testing.T) {
	m := insideMachine(t, "panic")
	fails(t, m, ErrDied, "sysrq triggered crash")
	if !strings.Contains(m.Console(), "sysrq triggered crash") {
		t.Errorf("console: %s", m.Console())
	}
}

func TestRebootFromInside(t *testing.T) {
	fails(t, insideMachine(t, "reboot"), ErrDied, "rebooted from inside")
}

func TestKernelKilledFromOutside(t *testing.T) {
	m := newMachine(t, "/bin/sleep", "60")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	group := m.run.kernel.Process.Pid
	if err := syscall.Kill(group, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); !errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	eventually(t, 10*time.Second, "all of the kernel's processes are gone", func() bool { return !inGroup(t, group) })
}

func TestMissingDirectoryInside(t *testing.T) {
	m := newMachine(t, "/bin/true")
	m.Dir = filepath.Join(t.TempDir(), "missing")
	if got := fails(t, m, ErrInit, ""); !strings.Contains(got, m.Dir) {
		t.Errorf("the message names no directory: %s", got)
	}
}

func TestTimeoutEndsTheMachine(t *testing.T) {
	m := shell(t, "trap '' TERM INT HUP; echo up; sleep 600; sleep 600")
	m.Timeout = 3 * time.Second // the boot of a busy host is in it
	start := time.Now()
	stdout, _, err := run(t, m)
	if !errors.Is(err, ErrTimeout) || stdout != "up\n" {
		t.Errorf("%v, stdout %q", err, stdout)
	}
	if d := time.Since(start); d < m.Timeout || d > m.Timeout+offDelay {
		t.Errorf("it took %v with a time-out of %v", d, m.Timeout)
	}
}

func TestContextEndsTheMachine(t *testing.T) {
	for _, delay := range []time.Duration{0, 20 * time.Millisecond, 500 * time.Millisecond} {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("no longer wanted")
		m := newMachine(t, "/bin/sleep", "600")
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(delay, func() { cancel(why) })
		if err := m.Wait(); !errors.Is(err, why) {
			t.Errorf("after %v: %v", delay, err)
		}
	}
}

// A reader that never reads does not keep a dead machine's Wait for ever.
func TestWaitIsBoundedByABlockedReader(t *testing.T) {
	m := newMachine(t, "/usr/bin/yes")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m.Stdout = w
	m.Timeout = time.Second
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	err = m.Wait()
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	_ = r.Close()
}

func TestMachineIsForOneUse(t *testing.T) {
	m := newMachine(t, "/bin/true")
	if err := m.Wait(); err == nil {
		t.Error("Wait before Start: no error")
	}
	if err := m.Signal(syscall.SIGTERM); err == nil {
		t.Error("Signal before Start: no error")
	}
	mustRun(t, m)
	if err := m.Start(t.Context()); err == nil {
		t.Error("a second Start: no error")
	}
}

// Whenever the host's process is killed, nothing of the machine goes on, and what
// lies about is what Leftovers names.
func TestKillingTheHostProcessLeavesNoProcess(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		m := shell(t, "sleep 600 & sleep 600")
		m.Swap = 64 << 20
		host := exec.Command(m.Init)
		host.Env = hostProgramEnv(t, m)
		if err := host.Start(); err != nil {
			t.Fatal(err)
		}
		group := 0
		eventually(t, 10*time.Second, "the kernel runs", func() bool {
			group = kernelOf(t, m.RunDir)
			return group != 0
		})
		time.Sleep(rand.N(250 * time.Millisecond)) // anywhere in boot and run
		if err := host.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = host.Wait()
		eventually(t, 10*time.Second, "all of the kernel's processes are gone", func() bool { return !inGroup(t, group) })
		if err := removeLeftovers(m.RunDir); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(m.RunDir); err != nil || len(left) > 0 {
			t.Errorf("round %d: left beside what Leftovers names: %v, %v", i, left, err)
		}
	}
}

// A host that is told to end passes that on and takes the command's status.
func TestHostPassesASignalOn(t *testing.T) {
	m := shell(t, `trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 1; done`)
	host := exec.Command(m.Init)
	host.Env = hostProgramEnv(t, m)
	host.Stderr = os.Stderr
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	if err := host.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	_ = host.Wait()
	if code := host.ProcessState.ExitCode(); code != 9 || string(rest) != "bye\n" {
		t.Errorf("exit status %d, output %q", code, rest)
	}
}

// Where stdin cannot be brought in, the command must neither see an early end nor
// wait for ever.
func TestStdinThatCannotBePassed(t *testing.T) {
	m := newMachine(t, "/bin/cat")
	m.Timeout = 20 * time.Second
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	m.Stdin = r
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(m.RunDir, shareName, chunkFile(1))
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Error(err)
	}
	if _, err := w.WriteString("input"); err != nil {
		t.Error(err)
	}
	if err := m.Wait(); !errors.Is(err, syscall.EISDIR) || !strings.Contains(err.Error(), "pass stdin") {
		t.Errorf("%v", err)
	}
	_ = w.Close()
}

// The control line is a device of the guest: what the command writes there is no
// message, and does not spoil one.
func TestCommandWritesToTheControlLine(t *testing.T) {
	m := shell(t, "printf begun >/dev/ttyS0; echo '{\"chunk\":' >/dev/ttyS0; printf 'begun again' >/dev/ttyS0; echo out; exit 3")
	m.Timeout = 20 * time.Second
	stdout, _, err := run(t, m)
	if code := exitStatus(t, err); code != 3 || stdout != "out\n" {
		t.Errorf("exit status %d, stdout %q", code, stdout)
	}
}

// Process 1 may stop on its way, too: here it opens a FIFO as the overlay's module.
func TestGuestThatStopsBeforeTheCommand(t *testing.T) {
	m := newMachine(t, "/bin/true")
	m.Modules = t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(m.Modules, "overlay.ko"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.BootTimeout, m.Timeout = 2*time.Second, 20*time.Second
	fails(t, m, ErrBoot, "")
}

// A second machine in a run directory is refused, and the first one keeps its files.
func TestRunDirectoryInUse(t *testing.T) {
	first, second := newMachine(t, "/bin/sleep", "60"), newMachine(t, "/bin/true")
	second.RunDir = first.RunDir
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	if left := Leftovers(first.RunDir); len(left) == 0 {
		t.Error("the files of the first machine are gone")
	}
	if err := first.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if code := exitStatus(t, first.Wait()); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit status %d", code)
	}
}

// What nohup has made the host's process ignore does not reach the command. The
// kernel, which opens what all processes inside open, may open more than this one.
func TestHostThatIgnoresHangup(t *testing.T) {
	m := shell(t, `trap 'echo hung up' HUP; echo ready; sleep 1; echo end`)
	host := exec.Command("/bin/sh", "-c", `trap '' HUP; ulimit -Sn 100; exec "$0"`, m.Init)
	host.Env = hostProgramEnv(t, m)
	host.Stderr = os.Stderr
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", kernelOf(t, m.RunDir)))
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); f[0] != f[1] {
				t.Errorf("the kernel may open %s files of %s", f[0], f[1])
			}
		}
	}
	if err := host.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	_ = host.Wait()
	if code := host.ProcessState.ExitCode(); code != 0 || string(rest) != "end\n" {
		t.Errorf("exit status %d, output %q", code, rest)
	}
}
