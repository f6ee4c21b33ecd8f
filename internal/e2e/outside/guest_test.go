package outside

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/e2e"
)

// A small guest, that comes up fast and may run beside others.
var small = []string{
	"--kernel", "guest", "--guest-overlay", "--guest-network", "loopback",
	"--profile", "t3.small", "--memory", "300M", "--swap", "0", "-n", "1",
	"--worker-memory", "128M", "--worker-swap", "0", "--worker-pids", "64",
}

func TestExitStatus(t *testing.T) {
	for _, code := range []int{0, 1, 7, 137} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			r := e2e.Exec(t, small, "sh", "-c", "exit "+strconv.Itoa(code))
			r.WantCode(t, code)
		})
	}
	r := e2e.Exec(t, small, "sandrun-no-such-command")
	r.WantCode(t, 127)
}

func TestKillIsTold(t *testing.T) {
	// The overlay keeps what is written, so the record is read through standard output.
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`w hog say last-words burst 200M; exit 0`)
	p.Start()
	r := p.Wait()
	r.WantCode(t, 1)
	if r.Stdout != "last-words\n" {
		t.Errorf("stdout %q", r.Stdout)
	}
	if !strings.Contains(r.Stderr, "memory.max 128 MiB") || !strings.Contains(r.Stderr, "hog") {
		t.Errorf("the summary does not name the worker and its cap:\n%s", r.Stderr)
	}
}

// 100 MB out of a worker in the guest, byte-exact.
func TestOutputIsExact(t *testing.T) {
	const size = 100_000_000
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`w writer spew 100000000`)
	check := &e2e.SpewChecker{}
	p.Cmd.Stdout = check
	p.Start()
	p.Wait().WantCode(t, 0)
	if err := check.Done(size); err != nil {
		t.Error(err)
	}
}

// 20 MB through standard input to standard output, and nothing between the two.
func TestInputIsExact(t *testing.T) {
	var in []byte
	for range 20_000_000 / 8 {
		var b [8]byte
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		in = append(in, b[:]...)
	}
	p := e2e.New(t, small, "cat")
	p.Cmd.Stdin = bytes.NewReader(in)
	p.Start()
	r := p.Wait()
	r.WantCode(t, 0)
	if r.Stdout != string(in) {
		t.Errorf("%d bytes went in, and %d other bytes came out", len(in), len(r.Stdout))
	}
}

// up starts a script in a guest and returns when it has said "up".
func up(t *testing.T, script string) *e2e.Process {
	t.Helper()
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+script)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	p.Cmd.Stdout = w
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Start()
	_ = w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "up\n" {
		_ = p.Cmd.Process.Kill()
		t.Fatalf("first line %q, %v\n%s", line, err, &p.Stderr)
	}
	return p
}

func TestSignals(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{
		syscall.SIGINT: 128 + 2, syscall.SIGTERM: 128 + 15, syscall.SIGHUP: 128 + 1,
	} {
		t.Run(sig.String(), func(t *testing.T) {
			p := up(t, `w a say up sleep 1m`)
			if err := p.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p.Wait().WantCode(t, code)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v to end", took)
			}
		})
	}
	t.Run("interrupt twice", func(t *testing.T) {
		p := up(t, `trap '' INT; w a deaf say up sleep 1m; sleep 60`)
		if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := p.Cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatalf("it ended with the first interrupt: %v", err)
		}
		start := time.Now()
		p.Wait().WantCode(t, 128+9)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v to end", took)
		}
	})
}

// Guests side by side each give their own answer.
func TestSideBySide(t *testing.T) {
	const runs = 4
	var processes [runs]*e2e.Process
	for i := range processes {
		processes[i] = e2e.New(t, small, "sh", "-c", e2e.Prelude+`w hog anon 200M; echo `+strconv.Itoa(i)+`; exit 3`)
		processes[i].Start()
	}
	for i, p := range processes {
		r := p.Wait()
		r.WantCode(t, 3)
		if r.Stdout != strconv.Itoa(i)+"\n" || !strings.Contains(r.Stderr, "memory.max 128 MiB") {
			t.Errorf("run %d: stdout %q, stderr %s", i, r.Stdout, r.Stderr)
		}
	}
}

// sandrun is killed at random moments of its guest's life: the guest goes with
// it, and gc clears the rest.
func TestKilledSandrunLeavesNothing(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	tmp := t.TempDir()
	cleared, guests := 0, 0
	for round := range rounds {
		p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`w a setsid hold 1m anon 30M & w b sleep 1m`)
		p.Cmd.Env = append(p.Cmd.Env, "TMPDIR="+tmp)
		p.Cmd.Stdout, p.Cmd.Stderr = nil, nil // pipes would be held open by what is left
		p.Start()
		wait := time.Duration(rand.Int64N(int64(800 * time.Millisecond)))
		time.Sleep(wait)
		pid := p.Cmd.Process.Pid
		family := descendants(t, pid)
		guests += min(1, len(family))
		if err := p.Cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.Cmd.Wait()
		cmd := exec.Command(e2e.Sandrun(t), "gc")
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("round %d: sandrun gc: %v\n%s", round, err, out)
		}
		cleared += strings.Count(string(out), "cleared run ")
		if found := left(t, pid, family, tmp); len(found) > 0 {
			t.Fatalf("round %d, killed after %v; left behind:\n%s", round, wait, strings.Join(found, "\n"))
		}
	}
	if cleared == 0 || guests == 0 {
		t.Errorf("in %d rounds gc cleared %d runs, and %d had a guest: the test kills too early or too late", rounds, cleared, guests)
	}
}

// A process is one life of a pid: its start time, in clock ticks since the boot,
// tells it from a later process of the same number.
type process struct {
	pid   int
	start string
}

// descendants lists what a process has started, and what those have.
func descendants(t *testing.T, ancestor int) []process {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]process{}
	for _, file := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		if parent, start, ok := stat(pid); ok {
			children[parent] = append(children[parent], process{pid, start})
		}
	}
	found := children[ancestor]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found
}

// stat reads the parent and the start time of a process, proc_pid_stat(5).
func stat(pid int) (parent int, start string, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the state on
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, string(fields[19]), err == nil && string(fields[0]) != "Z"
}

// left names what a dead sandrun has left: of its family, which gets a moment to
// die with it, directories of its run, and files.
func left(t *testing.T, pid int, family []process, tmp string) (found []string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found = nil
		for _, p := range family {
			if _, start, ok := stat(p.pid); ok && start == p.start {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
				found = append(found, fmt.Sprintf("process %d: %q", p.pid, cmdline))
			}
		}
		for _, pattern := range []string{tmp + "/*", "/run/sandrun/*/run.json"} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				var run struct{ Pid int }
				b, err := os.ReadFile(file)
				if strings.HasPrefix(file, tmp) || err == nil && json.Unmarshal(b, &run) == nil && run.Pid == pid {
					found = append(found, "file "+file)
				}
			}
		}
		if len(found) == 0 {
			return nil
		}
	}
	return found
}

// A guest that cannot be had in its time is an error that says so, not a hang.
func TestBootTimeout(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, e2e.Sandrun(t), "exec", "--kernel", "guest", "--guest-network", "loopback", "--guest-boot-timeout", "1ms", "--", "true")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 {
		t.Errorf("%v, want exit status 125\n%s", err, out)
	}
	if !strings.Contains(string(out), "1ms") {
		t.Errorf("it does not name the time it had: %s", out)
	}
}
