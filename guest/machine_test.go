package guest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	noExec := filepath.Join(dir, "not-executable")
	if err := os.WriteFile(noExec, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		code   int
		reason string
	}{
		{[]string{"/bin/sh", "-c", "exit 0"}, 0, ""},
		{[]string{"/bin/sh", "-c", "exit 1"}, 1, ""},
		{[]string{"/bin/sh", "-c", "exit 7"}, 7, ""},
		{[]string{"/bin/sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"/bin/sh", "-c", "kill -TERM $$"}, 143, ""},
		{[]string{noExec}, 126, noExec + ": permission denied"},
		{[]string{dir}, 126, dir + ": permission denied"},
		{[]string{dir + "/missing"}, 127, dir + "/missing: no such file or directory"},
	} {
		_, stderr, err := run(t, newMachine(t, c.args...))
		if code := exitStatus(t, err); code != c.code {
			t.Errorf("%q: exit status %d, want %d", c.args, code, c.code)
		}
		if exit := (*ExitError)(nil); errors.As(err, &exit) && exit.Reason != c.reason {
			t.Errorf("%q: reason %q, want %q", c.args, exit.Reason, c.reason)
		}
		if stderr != "" {
			t.Errorf("%q: stderr %q", c.args, stderr)
		}
	}
}

func TestCommandSeesItsWorld(t *testing.T) {
	m := shell(t, `echo "$GREETING|$(pwd)|$(id -u)|$(hostname)|$#|$1|$(cat /proc/sys/kernel/osrelease)|$(env | wc -l)"`)
	m.Args = append(m.Args, "sh", "two words\n")
	m.Env = []string{"GREETING=hello  there", "PATH=/usr/bin:/bin"}
	m.Dir = "/usr/share"
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(mustRun(t, m)), "|")
	if want := []string{"hello  there", "/usr/share", "0", host, "1"}; strings.Join(got[:5], "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got[:5], want)
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err != nil || got[6] == strings.TrimSpace(string(release)) {
		t.Errorf("the guest's kernel is %s, the host's %s (%v)", got[6], release, err)
	}
	if got[7] != "3" { // GREETING, PATH and the shell's own PWD
		t.Errorf("%s variables in the environment, want 3", got[7])
	}
}

// What Linux passes need not be text.
func TestCommandIsPassedByteByByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not\xffUTF-8")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := shell(t, `printf '%s|%s|' "$1" "$X"; pwd -P`)
	m.Args = append(m.Args, "sh", "\xc3(")
	m.Env = append(m.Env, "X=\xfe")
	m.Dir = dir
	if got, want := mustRun(t, m), "\xc3(|\xfe|"+dir+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// To the kernel's command line a byte of "à" is a space.
func TestInitWithABlankInItsPath(t *testing.T) {
	for _, name := range []string{"two words", "voil\u00e0"} {
		m := newMachine(t, "/bin/true")
		link := filepath.Join(t.TempDir(), name)
		if err := os.Symlink(m.Init, link); err != nil {
			t.Fatal(err)
		}
		m.Init = link
		mustRun(t, m)
	}
	if m := (&Machine{RunDir: "/tmp/voil\u00e0"}); plainPath(m.RunDir) {
		t.Errorf("%s is taken for a path that the kernel reads as one", m.RunDir)
	}
}

func TestFactsInside(t *testing.T) {
	if Inside() {
		t.Fatal("the host is taken for a guest")
	}
	if _, err := ReadFacts(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("facts on the host: %v", err)
	}
	m := insideMachine(t, "facts")
	m.Swap = 64 << 20
	var f Facts
	if err := json.Unmarshal([]byte(mustRun(t, m)), &f); err != nil {
		t.Fatal(err)
	}
	if f.Memory != m.Memory || f.Swap != m.Swap || !f.Overlay || f.UID != os.Geteuid() || f.MaxMapCount <= 0 || f.Kernel == f.HostKernel || f.HostKernel == "" {
		t.Errorf("%+v", f)
	}
}

func TestSwapIsThere(t *testing.T) {
	m := shell(t, "tail -n +2 /proc/swaps")
	m.Swap = 64 << 20
	if got := strings.Fields(mustRun(t, m)); len(got) < 3 || got[0] != swapDevice || got[2] != fmt.Sprint(64<<10-4) {
		t.Errorf("swaps %q, want %s of 64 MiB less a page", got, swapDevice)
	}
}

// randomFile returns a file of n random bytes, open at its start.
func randomFile(t *testing.T, n int64) (*os.File, [sha256.Size]byte) {
	t.Helper()
	f := tempFile(t)
	sum := sha256.New()
	src := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(f, sum), src, n); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f, [sha256.Size]byte(sum.Sum(nil))
}

// pipeFrom returns a pipe into which all of f goes.
func pipeFrom(t *testing.T, f *os.File) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(w, f)
		_ = w.Close()
	}()
	t.Cleanup(func() { _ = r.Close(); <-done })
	return r
}

const large = 100_000_000

func TestInputAndOutputAreExact(t *testing.T) {
	for _, kind := range []string{"file", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			in, sum := randomFile(t, large)
			m := newMachine(t, "/bin/cat")
			m.Stdin = in
			if kind == "pipe" {
				m.Stdin = pipeFrom(t, in)
			}
			start := time.Now()
			out := mustRun(t, m)
			if got := sha256.Sum256([]byte(out)); got != sum {
				t.Errorf("%d bytes came back of %d, or others", len(out), large)
			}
			t.Logf("%.0f MB/s in and out, boot included", large/1e6/time.Since(start).Seconds())
		})
	}
}

func TestStreamsStayApart(t *testing.T) {
	stdout, stderr, err := run(t, shell(t, `i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done`))
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	for i := range 500 {
		fmt.Fprintln(&out, "out", i)
		fmt.Fprintln(&errs, "err", i)
	}
	if stdout != out.String() || stderr != errs.String() {
		t.Errorf("stdout %d bytes, want %d; stderr %d, want %d", len(stdout), out.Len(), len(stderr), errs.Len())
	}
}

// With 2>&1 the order between the two streams is part of the output.
func TestOneFileForBothStreamsKeepsTheirOrder(t *testing.T) {
	m := shell(t, `i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done`)
	both := tempFile(t)
	m.Stdout, m.Stderr = both, both
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 200 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
	}
	if got := content(t, both); got != want.String() {
		t.Errorf("got\n%s", got)
	}
}

// The last output of a command that is killed has been written.
func TestLastLineBeforeAKill(t *testing.T) {
	stdout, stderr, err := run(t, shell(t, `printf 'last line'; printf 'last error' >&2; kill -9 $$`))
	if stdout != "last line" || stderr != "last error" || exitStatus(t, err) != 137 {
		t.Errorf("%q, %q, %v", stdout, stderr, err)
	}
}

// What the command leaves running dies with the machine and does not hold it up.
func TestBackgroundProcessDoesNotHoldTheMachine(t *testing.T) {
	start := time.Now()
	out := mustRun(t, shell(t, `(trap '' TERM HUP; setsid sleep 600) & echo done`))
	if out != "done\n" || time.Since(start) > 10*time.Second {
		t.Errorf("%q after %v", out, time.Since(start))
	}
}

func TestNobodyReadsStdout(t *testing.T) {
	m := newMachine(t, "/usr/bin/yes")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m.Stdout = w
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	line := make([]byte, 2)
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "y\n" {
		t.Errorf("read %q, %v", line, err)
	}
	_ = r.Close()
	start := time.Now()
	if code := exitStatus(t, m.Wait()); code != 128+int(syscall.SIGPIPE) {
		t.Errorf("exit status %d, want that of SIGPIPE", code)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the command went on for %v", d)
	}
}

func TestStdinIsLeftWhereTheCommandStopped(t *testing.T) {
	for _, size := range []int64{1000, 3 * chunkSize} {
		in, _ := randomFile(t, size)
		m := newMachine(t, "/bin/dd", "bs=10", "count=2", "status=none")
		m.Stdin = in
		if _, err := in.Seek(100, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if out := mustRun(t, m); len(out) != 20 {
			t.Fatalf("%d bytes out", len(out))
		}
		if at, err := in.Seek(0, io.SeekCurrent); err != nil || at != 120 {
			t.Errorf("the file of %d bytes is at %d, want 120 (%v)", size, at, err)
		}
	}
}

func TestStdinOfAPipeIsNotReadAfterTheEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(); _ = w.Close() }()
	m := newMachine(t, "/bin/true")
	m.Stdin = r
	mustRun(t, m)
	if _, err := w.WriteString("for the next"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "for the next" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

func TestEndOfStdin(t *testing.T) {
	for _, in := range []*os.File{nil, tempFile(t)} {
		m := newMachine(t, "/usr/bin/wc", "-c")
		m.Stdin = in
		if got := strings.TrimSpace(mustRun(t, m)); got != "0" {
			t.Errorf("%s bytes of an empty input", got)
		}
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGKILL} {
		m := newMachine(t, "/bin/sleep", "60")
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Before the command runs: it is kept for it.
		if err := m.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := exitStatus(t, m.Wait()); code != 128+int(sig) {
			t.Errorf("%v: exit status %d", sig, code)
		}
		if err := m.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%v after the end: %v", sig, err)
		}
	}
}

// A signal is for the one process: its children live until it decides.
func TestSignalIsForOneProcess(t *testing.T) {
	m := shell(t, `sleep 60 & trap 'echo caught; kill -0 $! && echo child lives; exit 3' TERM; echo ready; wait`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	m.Stdout = w
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	first := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	if err := m.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if code := exitStatus(t, m.Wait()); code != 3 || err != nil || !bytes.Equal(rest, []byte("caught\nchild lives\n")) {
		t.Errorf("exit status %d, then %q, %v", code, rest, err)
	}
}

// Each processor gets its n-th guest before any gets its n+1st.
func TestSeatsAreSpread(t *testing.T) {
	allowed, err := sys.Affinity()
	if err != nil {
		t.Fatal(err)
	}
	kind := fmt.Sprintf("sandrun-test-%d", os.Getpid())
	taken := make(map[int]int)
	for n := range 3 {
		for range allowed {
			s, err := takeSeat(kind)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.release)
			taken[s.cpu]++
		}
		for _, cpu := range allowed {
			if taken[cpu] != n+1 {
				t.Errorf("after %d guests: %v", (n+1)*len(allowed), taken)
			}
		}
	}
}

func TestRefusedBeforeAnythingIsMade(t *testing.T) {
	for what, spoil := range map[string]func(*Machine){
		"no command":            func(m *Machine) { m.Args = nil },
		"must be an absolute":   func(m *Machine) { m.Args = []string{"true"} },
		"of a guest is its own": func(m *Machine) { m.Dir = "/dev/shm" },
		"at least":              func(m *Machine) { m.Memory = 1 << 20 },
		"white space":           func(m *Machine) { m.RunDir = "/tmp/a b" },
		"no such file":          func(m *Machine) { m.RunDir += "/missing" },
		"no place for":          func(m *Machine) { m.Memory = 1 << 50 },
		"must be 40960":         func(m *Machine) { m.Swap = 1 },
		"start the guest":       func(m *Machine) { m.Kernel = "/missing/linux" },
	} {
		m := newMachine(t, "/bin/true")
		dir := m.RunDir
		spoil(m)
		if err := m.Start(t.Context()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if left := Leftovers(dir); len(left) > 0 {
			t.Errorf("%s: left %q", what, left)
		}
	}
}
