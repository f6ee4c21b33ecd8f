package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is three programs beside the tests: process 1 of a guest, a
// command inside one, and a host process that runs a machine and can be killed.
const (
	insideEnv  = "SANDRUN_TEST_INSIDE"  // what to do inside
	machineEnv = "SANDRUN_TEST_MACHINE" // a hostProgram as JSON
)

func TestMain(m *testing.M) {
	Init()
	if what := os.Getenv(insideEnv); what != "" {
		insideProgram(what)
		return
	}
	if spec := os.Getenv(machineEnv); spec != "" {
		os.Exit(runHostProgram(spec))
	}
	before := openDescriptors()
	code := m.Run()
	for fd, target := range openDescriptors() {
		if before[fd] != target && !strings.HasPrefix(target, "anon_inode:[event") {
			fmt.Fprintf(os.Stderr, "FAIL: the tests left file descriptor %s open: %s\n", fd, target)
			code = 1
		}
	}
	os.Exit(code)
}

func openDescriptors() map[string]string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	set := make(map[string]string)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			set[e.Name()] = target
		}
	}
	return set
}

// kernel returns the guest kernel, or skips: see STYLE, skips come from the
// product's own errors.
func kernel(t testing.TB) (kernel, modules string) {
	t.Helper()
	kernel, modules, err := DefaultStore().Kernel()
	if errors.Is(err, ErrNoKernel) || errors.Is(err, ErrNotSupported) {
		if os.Getenv("SANDRUN_TEST_MUST_WORK") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kernel, modules
}

// newMachine returns a machine that runs a command of the host over an overlay.
func newMachine(t testing.TB, args ...string) *Machine {
	t.Helper()
	k, modules := kernel(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{
		Kernel: k, Modules: modules, Init: self,
		Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Dir: dir,
		Memory: 256 << 20, Overlay: true, Timeout: 2 * time.Minute, RunDir: t.TempDir(),
	}
}

func shell(t testing.TB, script string) *Machine { return newMachine(t, "/bin/sh", "-c", script) }

// insideMachine runs insideProgram(what).
func insideMachine(t testing.TB, what string) *Machine {
	m := newMachine(t)
	m.Args = []string{m.Init}
	m.Env = append(m.Env, insideEnv+"="+what)
	return m
}

// tempFile returns a new file; its content is read with content.
func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func content(t testing.TB, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// run runs a machine with its output going to files, and returns those.
func run(t testing.TB, m *Machine) (stdout, stderr string, err error) {
	t.Helper()
	out, errs := tempFile(t), tempFile(t)
	m.Stdout, m.Stderr = out, errs
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = m.Wait()
	if left := Leftovers(m.RunDir); len(left) > 0 {
		t.Errorf("left in the run directory: %q", left)
	}
	return content(t, out), content(t, errs), err
}

// mustRun runs a machine whose command must end with status 0.
func mustRun(t testing.TB, m *Machine) (stdout string) {
	t.Helper()
	stdout, stderr, err := run(t, m)
	if err != nil {
		t.Fatalf("%v\nstdout: %s\nstderr: %s", err, stdout, stderr)
	}
	return stdout
}

func exitStatus(t testing.TB, err error) int {
	t.Helper()
	var exit *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	t.Fatalf("no exit status but %v", err)
	return 0
}

// insideProgram is a command inside a guest; it writes only to a throw-away layer.
func insideProgram(what string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	switch what {
	case "facts":
		f, err := ReadFacts()
		fail(err)
		fail(json.NewEncoder(os.Stdout).Encode(f))
	case "panic":
		fail(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	case "reboot":
		fail(syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART))
	case "tty":
		insideTerminals()
	default:
		fail(fmt.Errorf("inside: %q", what))
	}
}

// insideTerminals says which of the three streams are terminals.
func insideTerminals() {
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		fmt.Fprintf(os.Stderr, "%v=%v ", stream(i), isTerminal(f))
	}
}

// A hostProgram is a host process that runs a machine on its own streams.
type hostProgram struct{ Machine Machine }

func runHostProgram(spec string) int {
	var p hostProgram
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	m := &p.Machine
	m.Stdin, m.Stdout, m.Stderr = os.Stdin, os.Stdout, os.Stderr
	m.Forward = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP}
	err := m.Start(context.Background())
	if err == nil {
		err = m.Wait()
	}
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return 0
}

// hostProgramEnv is the environment that makes the test binary run m.
func hostProgramEnv(t testing.TB, m *Machine) []string {
	t.Helper()
	type plainMachine struct {
		Kernel, Modules, Init string
		Args, Env             []string
		Dir, RunDir           string
		Memory, Swap          int64
		Overlay               bool
		BootTimeout, Timeout  time.Duration
	}
	b, err := json.Marshal(struct{ Machine plainMachine }{plainMachine{
		m.Kernel, m.Modules, m.Init, m.Args, m.Env, m.Dir, m.RunDir, m.Memory, m.Swap, m.Overlay, m.BootTimeout, m.Timeout,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), machineEnv+"="+string(b))
}

// kernelOf returns the pid of the kernel process of a run directory, 0 without one.
func kernelOf(t testing.TB, runDir string) int {
	t.Helper()
	return findProcess(t, func(pid int) bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && bytes.Contains(b, []byte("uml_dir="+runDir+"\x00"))
	})
}

// inGroup reports whether a process group has a process that is not a zombie.
func inGroup(t testing.TB, group int) bool {
	t.Helper()
	return findProcess(t, func(pid int) bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		// proc_pid_stat(5), behind the name: state, parent, group.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		return f[0] != "Z" && f[2] == fmt.Sprint(group)
	}) != 0
}

func findProcess(t testing.TB, is func(pid int) bool) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && is(pid) {
			return pid
		}
	}
	return 0
}

// eventually fails the test unless what becomes true within d.
func eventually(t testing.TB, d time.Duration, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !true(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
