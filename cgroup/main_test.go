package cgroup

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/kerneltest"
)

// helperEnv makes the test binary one of the helpers below.
const helperEnv = "SANDRUN_CGROUP_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		helper(name)
	}
	if os.Getpid() != 1 && !guest.Inside() && os.Getenv(watchedEnv) == "" {
		os.Exit(watchHost())
	}
	kerneltest.Main(m)
}

// helper is a process in a leaf, or one that opens a tree from a place of its own.
func helper(name string) {
	args := os.Args[1:]
	f, ok := helpers[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such helper:", name)
		os.Exit(2)
	}
	if err := f(args); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

var helpers = map[string]func(args []string) error{
	// sleep until it is killed
	"sleep": func([]string) error { say("ready"); time.Sleep(time.Hour); return nil },
	// exit at once
	"true": func([]string) error { return nil },
	// touch args[0] MiB of anonymous memory, one page after the other, then sleep
	"hog": func(args []string) error {
		var all [][]byte
		for range mib(args[0]) >> 20 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		defer runtime.KeepAlive(all)
		say("ready")
		time.Sleep(time.Hour)
		return nil
	},
	// write args[0] MiB into a file on tmpfs
	"shm": func(args []string) error {
		f, err := os.CreateTemp("/dev/shm", "sandrun-test-")
		if err != nil {
			return err
		}
		_ = os.Remove(f.Name())
		for range mib(args[0]) >> 20 {
			if _, err := f.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		say("ready")
		time.Sleep(time.Hour)
		return nil
	},
	// start args[0] children that sleep; count those that were refused
	"forks": func(args []string) error {
		refused := 0
		for range int(mib(args[0]) >> 20) {
			c := helperCommand("sleep")
			if err := c.Start(); errors.Is(err, syscall.EAGAIN) {
				refused++
			} else if err != nil {
				return err
			}
		}
		say("refused", refused)
		time.Sleep(time.Hour)
		return nil
	},
	// a grandchild in a session of its own outlives its parents
	"daemon": func([]string) error {
		c := helperCommand("orphan")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		c.Stdout = os.Stdout
		return c.Run()
	},
	"orphan": func([]string) error {
		c := helperCommand("sleep")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		c.Stdout = os.Stdout
		return c.Start()
	},
	// make cgroups below the own one, with a process in the last
	"nest": func(args []string) error {
		dir := filepath.Join(args[0], "a", "b")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		c := helperCommand("sleep")
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			return err
		}
		return os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(c.Process.Pid)), 0)
	},
	"open": helperOpen,
	// run args under this process: a parent that is in the same cgroup
	"parent": func(args []string) error {
		c := helperCommand("open", args...)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		_ = c.Run() // the test kills it
		return nil
	},
	// run args in a cgroup namespace whose root is the own cgroup
	"cgroupns": func(args []string) error {
		c := helperCommand("open", args...)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP}
		return c.Run()
	},
	// hold the process in args[0] at its exit: no signal ends it while we trace it
	"tracer": helperTracer,
}

func say(v ...any) { fmt.Println(v...) }

func mib(s string) int64 {
	var n int64
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(err)
	}
	return n << 20
}

// An openSpec tells helperOpen what to do, an opened what came of it.
type openSpec struct {
	Run      string
	Ways     []string
	Machine  Limits
	ReadOnly bool // remount the cgroup file system read-only, in an own mount namespace
	CgroupNS bool // mount it anew, in an own cgroup namespace
	Hog      bool // have a leaf's cap kill a process
}

type opened struct {
	Via, Path, Error string
	Refused          map[string]string
	NoDelegation     bool
	Self             string // own cgroup once the tree is open
	Caps             string // memory.max of machine/
	HogKilled        bool   // the leaf's cap killed the hog, and its counters say so
	After            string // own cgroup once it is closed
	CloseError       string
}

// helperOpen opens a tree, says so in JSON, waits for its standard input to end
// and closes the tree.
func helperOpen(args []string) error {
	var spec openSpec
	if err := json.Unmarshal([]byte(args[0]), &spec); err != nil {
		return err
	}
	if spec.ReadOnly || spec.CgroupNS {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make the mounts private: %w", err)
		}
	}
	if spec.ReadOnly {
		if err := syscall.Mount("", "/sys/fs/cgroup", "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("remount read-only: %w", err)
		}
	}
	if spec.CgroupNS {
		if err := syscall.Unmount("/sys/fs/cgroup", syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount cgroup2: %w", err)
		}
		if err := syscall.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
	}
	var o opened
	out := json.NewEncoder(os.Stdout)
	tree, err := Open(context.Background(), Options{Run: spec.Run, Machine: spec.Machine, Ways: spec.Ways})
	if err != nil {
		o.Error, o.NoDelegation = err.Error(), errors.Is(err, ErrNoDelegation)
		var d *DelegationError
		if errors.As(err, &d) {
			o.Refused = refusals(d.Refused)
		}
		return out.Encode(o)
	}
	d := tree.Delegation()
	o.Via, o.Path, o.Refused = d.Via, d.Path, refusals(d.Refused)
	o.Self = ownCgroup()
	o.Caps = readFile(tree.Machine().Path() + "/memory.max")
	leaf, err := tree.NewLeaf("worker-0001", Limits{Memory: 16 << 20, Pids: 16})
	if err != nil {
		o.Error = err.Error()
	} else if err := runTrue(leaf); err != nil {
		o.Error = err.Error()
	}
	if spec.Hog {
		if o.HogKilled, err = runHog(tree); err != nil {
			o.Error = err.Error()
		}
	}
	if err := out.Encode(o); err != nil {
		return err
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	if err := tree.Close(context.Background()); err != nil {
		o.CloseError = err.Error()
	}
	o.After = ownCgroup()
	return out.Encode(o)
}

func runTrue(leaf *Leaf) error {
	c := helperCommand("true")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: leaf.FD()}
	if err := c.Run(); err != nil {
		return err
	}
	return leaf.Remove(context.Background())
}

// runHog reports whether a leaf's cap kills who exceeds it, and says so.
func runHog(tree *Tree) (bool, error) {
	leaf, err := tree.NewLeaf("hog", Limits{Memory: 16 << 20, Pids: 16, OOMGroup: true})
	if err != nil {
		return false, err
	}
	c := helperCommand("hog", "40")
	c.SysProcAttr = into(leaf)
	_ = c.Run()
	ws := c.ProcessState.Sys().(syscall.WaitStatus)
	e, err := leaf.Events()
	if err != nil {
		return false, err
	}
	killed := ws.Signaled() && ws.Signal() == syscall.SIGKILL && e.MemoryLocal.OOM > 0 && e.Memory.OOMKill > 0
	return killed, leaf.Remove(context.Background())
}

func refusals(rs []Refusal) map[string]string {
	m := make(map[string]string)
	for _, r := range rs {
		m[r.Via] = r.Err.Error()
	}
	return m
}

func ownCgroup() string {
	return strings.TrimPrefix(readFile("/proc/self/cgroup"), "0::")
}

func readFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// helperTracer traces a child in the leaf args[0] that stops when it exits
// (PTRACE_O_TRACEEXIT), even of SIGKILL, and stays until we let it go.
func helperTracer(args []string) error {
	dir, err := os.Open(args[0])
	if err != nil {
		return err
	}
	c := helperCommand("sleep")
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	// ptrace belongs to a thread; the main goroutine of a helper is on its own.
	if err := c.Start(); err != nil {
		return err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(c.Process.Pid, &ws, 0, nil); err != nil {
		return err
	}
	const traceExit = 0x40
	if err := syscall.PtraceSetOptions(c.Process.Pid, traceExit); err != nil {
		return err
	}
	if err := syscall.PtraceCont(c.Process.Pid, 0); err != nil {
		return err
	}
	say("ready", c.Process.Pid)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return syscall.PtraceCont(c.Process.Pid, 0)
}

// helperExe is a copy of the test binary that every user may run: the go command
// builds it in a private directory.
var helperExe = sync.OnceValue(func() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if os.Getenv(helperEnv) != "" {
		return exe
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		panic(err)
	}
	public := "/run/cgroup.test"
	if err := os.WriteFile(public, b, 0o755); err != nil {
		panic(err)
	}
	return public
})

func helperCommand(name string, args ...string) *exec.Cmd {
	c := exec.Command(helperExe(), args...)
	c.Env = append(os.Environ(), helperEnv+"="+name, "GOMAXPROCS=1")
	return c
}

// A proc is a helper that runs.
type proc struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bufio.Reader
	stdin *os.File
	once  sync.Once
}

// start runs a helper and waits for no more than its start. attr may be nil.
func start(t *testing.T, attr *syscall.SysProcAttr, name string, args ...string) *proc {
	t.Helper()
	c := helperCommand(name, args...)
	c.SysProcAttr = attr
	c.Stderr = os.Stderr
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.Stdout = inR, outW
	if err := c.Start(); err != nil {
		t.Fatalf("start helper %s: %v", name, err)
	}
	_ = inR.Close()
	_ = outW.Close()
	p := &proc{t: t, cmd: c, out: bufio.NewReader(outR), stdin: inW}
	t.Cleanup(func() {
		_ = inW.Close()
		_ = c.Process.Kill()
		p.wait()
		_ = outR.Close()
	})
	return p
}

// into puts a helper into a leaf.
func into(l *Leaf) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: l.FD()}
}

// line reads one line that the helper says.
func (p *proc) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the helper said %q: %v", s, err)
	}
	return strings.TrimSpace(s)
}

// result reads one JSON line.
func (p *proc) result() opened {
	p.t.Helper()
	var o opened
	if err := json.Unmarshal([]byte(p.line()), &o); err != nil {
		p.t.Fatal(err)
	}
	return o
}

// wait gives the signal that ended the helper, or 0.
func (p *proc) wait() syscall.Signal {
	p.once.Do(func() { _ = p.cmd.Wait() })
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return ws.Signal()
	}
	return 0
}

var testMachine = Limits{Memory: 256 << 20, Pids: 200}

// openTree opens a tree for a test, which closes it, on the guest's bare root.
func openTree(t testing.TB, machine Limits) *Tree {
	t.Helper()
	tree, err := Open(t.Context(), Options{Run: runID(t), Machine: machine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(tree.Path()); !os.IsNotExist(err) {
			t.Errorf("after Close, %s: %v", tree.Path(), err)
		}
	})
	return tree
}

func runID(t testing.TB) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '#' {
			return '-'
		}
		return r
	}, t.Name())
}

func newLeaf(t testing.TB, tree *Tree, name string, l Limits) *Leaf {
	t.Helper()
	leaf, err := tree.NewLeaf(name, l)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func events(t testing.TB, n interface{ Events() (Events, error) }) Events {
	t.Helper()
	e, err := n.Events()
	if err != nil {
		t.Fatal(err)
	}
	return e
}
