package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

const someUser = 1000

// A sandbox is a cgroup at the root, made by a test, from which helpers open trees.
type sandbox struct {
	t    *testing.T
	path string
	fd   int
}

func newSandbox(t *testing.T, controllers ...string) *sandbox {
	t.Helper()
	for _, c := range []string{"memory", "pids", "cpu"} {
		write(t, "/sys/fs/cgroup/cgroup.subtree_control", "+"+c)
	}
	s := &sandbox{t: t, path: "/sys/fs/cgroup/" + strings.ReplaceAll(t.Name(), "/", "-")}
	if err := os.Mkdir(s.path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if names := treeOf(s.path); len(names) > 0 {
			t.Errorf("left in %s: %v", s.path, names)
		}
		root, err := sys.OpenDir("/sys/fs/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sys.CloseFD(root) }()
		ctx, cancel := context.WithTimeout(context.Background(), RemoveWait)
		defer cancel()
		if err := removeDir(ctx, root, s.path); err != nil {
			t.Error(err)
		}
	})
	for _, c := range controllers {
		write(t, s.path+"/cgroup.subtree_control", "+"+c)
	}
	fd, err := sys.OpenDir(s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.fd = fd
	t.Cleanup(func() { _ = sys.CloseFD(fd) })
	return s
}

// sub makes a cgroup below s.
func (s *sandbox) sub(name string) *sandbox {
	s.t.Helper()
	p := s.path + "/" + name
	if err := os.Mkdir(p, 0o755); err != nil {
		s.t.Fatal(err)
	}
	fd, err := sys.OpenDir(p)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = sys.CloseFD(fd)
		if names := treeOf(p); len(names) > 0 {
			s.t.Errorf("left in %s: %v", p, names)
		}
		_ = os.Remove(p)
	})
	return &sandbox{t: s.t, path: p, fd: fd}
}

// delegate gives a cgroup to a user, as the kernel's documentation says:
// the directory, cgroup.procs, cgroup.threads and cgroup.subtree_control.
func (s *sandbox) delegate(uid int) {
	s.t.Helper()
	for _, f := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(s.path, f), uid, uid); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sandbox) attr(uid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: s.fd}
	if uid != 0 {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return a
}

// open has a helper open a tree from inside the cgroup.
func (s *sandbox) open(attr *syscall.SysProcAttr, spec openSpec) (*proc, opened) {
	s.t.Helper()
	return s.openVia("open", attr, spec)
}

func (s *sandbox) openVia(helper string, attr *syscall.SysProcAttr, spec openSpec) (*proc, opened) {
	s.t.Helper()
	if spec.Machine == (Limits{}) {
		spec.Machine = Limits{Memory: 64 << 20, Pids: 64}
	}
	if spec.Run == "" {
		spec.Run = "r1"
	}
	b, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	p := start(s.t, attr, helper, string(b))
	return p, p.result()
}

// done lets the helper close its tree.
func (p *proc) done() opened {
	p.t.Helper()
	_ = p.stdin.Close()
	o := p.result()
	p.wait()
	return o
}

func write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// treeOf lists what of ours is in a cgroup.
func treeOf(dir string) []string {
	m, _ := filepath.Glob(dir + "/" + Prefix + "*")
	return m
}

// An unprivileged user gets a tree in a subtree that was given to it, without
// systemd; its other processes move aside for the time of the run.
func TestNestedAsUser(t *testing.T) {
	s := newSandbox(t)
	s.delegate(someUser)
	p, o := s.openVia("parent", s.attr(someUser), openSpec{})
	in := strings.TrimPrefix(s.path, "/sys/fs/cgroup")
	if o.Error != "" || o.Via != Nested || o.Path != s.path || o.Self != in+"/sandrun-r1/supervisor" || o.Caps != "67108864" {
		t.Fatalf("open: %+v", o)
	}
	if got := readFile(fmt.Sprintf("/proc/%d/cgroup", p.cmd.Process.Pid)); got != "0::"+in+"/"+outerName {
		t.Errorf("the parent is in %s", got)
	}
	if o := p.done(); o.CloseError != "" || o.After != in {
		t.Errorf("close: %+v", o)
	}
	if got := readFile(s.path + "/cgroup.subtree_control"); got != "" {
		t.Errorf("controllers that the run enabled are left on: %s", got)
	}
}

// Two runs share a delegated cgroup, and the first to leave does not disturb the second.
func TestNestedSideBySide(t *testing.T) {
	s := newSandbox(t)
	s.delegate(someUser)
	in := strings.TrimPrefix(s.path, "/sys/fs/cgroup")
	p1, o1 := s.open(s.attr(someUser), openSpec{Run: "r1"})
	if o1.Error != "" {
		t.Fatalf("%+v", o1)
	}
	outer := s.path + "/" + outerName
	// The second starts where a shell would be whose processes were moved aside.
	if err := os.Mkdir(outer, 0o755); err != nil {
		t.Fatal(err)
	}
	o := &sandbox{t: t, path: outer}
	o.delegate(someUser)
	fd, err := sys.OpenDir(outer)
	if err != nil {
		t.Fatal(err)
	}
	o.fd = fd
	p2, o2 := s.open(o.attr(someUser), openSpec{Run: "r2"})
	_ = sys.CloseFD(fd)
	if o2.Error != "" || o2.Path != s.path {
		t.Fatalf("%+v", o2)
	}
	if c := p1.done(); c.CloseError != "" || c.After != in+"/"+outerName {
		t.Errorf("the first to leave: %+v", c)
	}
	if got := readFile(s.path + "/sandrun-r2/machine/memory.max"); got != "67108864" {
		t.Errorf("the second run's cap after the first has left: %s", got)
	}
	if c := p2.done(); c.CloseError != "" || c.After != in {
		t.Errorf("the last to leave: %+v", c)
	}
}

func TestNestedInACgroupNamespace(t *testing.T) {
	s := newSandbox(t)
	p, o := s.openVia("cgroupns", s.attr(0), openSpec{CgroupNS: true})
	if o.Error != "" || o.Via != Nested || o.Path != "/sys/fs/cgroup" || o.Self != "/sandrun-r1/supervisor" {
		t.Errorf("open: %+v", o)
	}
	if o := p.done(); o.CloseError != "" || o.After != "/" {
		t.Errorf("close: %+v", o)
	}
}

// What is refused must be refused: with the file, the value where there is one, and the way out.
func TestFailClosed(t *testing.T) {
	nested := openSpec{Ways: []string{Nested}}
	want := func(t *testing.T, o opened, via string, parts ...string) {
		t.Helper()
		got := o.Error
		if via != "" {
			got = o.Refused[via]
			if !o.NoDelegation {
				t.Errorf("the error does not match ErrNoDelegation: %s", o.Error)
			}
		}
		if o.Path != "" {
			t.Errorf("a tree was opened: %+v", o)
		}
		for _, p := range parts {
			if !strings.Contains(got, p) {
				t.Errorf("the error lacks %q:\n%s", p, o.Error)
			}
		}
	}
	t.Run("not delegated", func(t *testing.T) {
		s := newSandbox(t)
		_, o := s.open(s.attr(someUser), nested)
		want(t, o, Nested, s.path, "permission denied", "systemd-run --user --scope -p Delegate=yes", "--kernel guest")
	})
	t.Run("delegated in part", func(t *testing.T) {
		s := newSandbox(t)
		if err := os.Chown(s.path, someUser, someUser); err != nil {
			t.Fatal(err)
		}
		_, o := s.open(s.attr(someUser), nested)
		want(t, o, Nested, s.path+"/cgroup.procs", "permission denied")
	})
	t.Run("read-only", func(t *testing.T) {
		s := newSandbox(t)
		attr := s.attr(0)
		attr.Cloneflags = syscall.CLONE_NEWNS
		spec := nested
		spec.ReadOnly = true
		_, o := s.open(attr, spec)
		want(t, o, Nested, s.path, "read-only file system", "--kernel guest")
	})
	t.Run("missing controller", func(t *testing.T) {
		outer := newSandbox(t, "pids")
		s := outer.sub("inner")
		_, o := s.open(s.attr(0), nested)
		want(t, o, Nested, s.path+"/cgroup.subtree_control=+memory", `does not hand the memory controller down, only "pids"`, "Delegate=cpu memory pids")
	})
	t.Run("missing cpu controller", func(t *testing.T) {
		outer := newSandbox(t, "pids", "memory")
		s := outer.sub("inner")
		spec := nested
		spec.Machine = Limits{Memory: 64 << 20, Pids: 64, CPUs: 1}
		_, o := s.open(s.attr(0), spec)
		want(t, o, Nested, s.path+"/cgroup.subtree_control=+cpu")
		// Without a cap on CPU time there is nothing to miss.
		p, o := s.open(s.attr(0), nested)
		if o.Error != "" || p.done().CloseError != "" {
			t.Errorf("%+v", o)
		}
	})
	t.Run("strangers inside", func(t *testing.T) {
		s := newSandbox(t)
		stranger := start(t, s.attr(0), "sleep")
		stranger.line()
		_, o := s.open(s.attr(0), nested)
		want(t, o, Nested, fmt.Sprint(stranger.cmd.Process.Pid), "not of this process tree", "systemd-run")
		if got := readFile(fmt.Sprintf("/proc/%d/cgroup", stranger.cmd.Process.Pid)); got != "0::"+strings.TrimPrefix(s.path, "/sys/fs/cgroup") {
			t.Errorf("the stranger was moved to %s", got)
		}
	})
	t.Run("threaded", func(t *testing.T) {
		outer := newSandbox(t)
		s := outer.sub("inner")
		write(t, s.path+"/cgroup.type", "threaded")
		p := start(t, outer.attr(0), "open", `{"Run":"r1","Ways":["nested"],"Machine":{"Memory":1048576,"Pids":9}}`)
		want(t, p.result(), Nested, outer.path+"/cgroup.type=domain threaded")
		p.wait()
	})
	for file, limit := range map[string]struct{ value, flag string }{
		"memory.max": {"33554432", "--memory 33554432"}, "memory.high": {"33554432", "--memory"},
		"memory.swap.max": {"4096", "--swap 4096"}, "pids.max": {"50", "--pids 50"},
	} {
		t.Run("tight "+file, func(t *testing.T) {
			outer := newSandbox(t, "pids", "memory")
			s := outer.sub("inner")
			write(t, outer.path+"/"+file, limit.value)
			spec := nested
			spec.Machine = Limits{Memory: 64 << 20, Pids: 64, Swap: 1 << 20}
			_, o := s.open(s.attr(0), spec)
			want(t, o, "", outer.path+"/"+file+"="+limit.value, "tighter than the machine's", limit.flag)
		})
	}
	t.Run("root as user", func(t *testing.T) {
		s := newSandbox(t)
		_, o := s.open(s.attr(someUser), openSpec{Ways: []string{Root}})
		want(t, o, Root, "uid 1000 is not root")
	})
	t.Run("root out of a limit", func(t *testing.T) {
		s := newSandbox(t)
		write(t, s.path+"/memory.max", "1073741824")
		_, o := s.open(s.attr(0), openSpec{Ways: []string{Root}})
		want(t, o, Root, s.path+"/memory.max=1073741824", "escape this limit")
	})
	t.Run("no systemd", func(t *testing.T) {
		s := newSandbox(t)
		_, o := s.open(s.attr(0), openSpec{Ways: []string{SystemdSystem}})
		want(t, o, SystemdSystem, "systemd is not the init")
	})
	t.Run("no D-Bus", func(t *testing.T) {
		if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil { // as sd_booted(3) looks for
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll("/run/systemd") }()
		s := newSandbox(t)
		_, o := s.open(s.attr(0), openSpec{})
		want(t, o, SystemdSystem, "/run/dbus/system_bus_socket", "no such file", "apt-get install dbus")
		want(t, o, SystemdUser, "root uses the system's systemd")
		want(t, o, Nested, "systemd manages this cgroup and has not delegated it", "systemd-run")
		want(t, o, Root, "systemd manages the hierarchy")
		_, o = s.open(s.attr(someUser), openSpec{})
		want(t, o, SystemdUser, "/run/user/1000/bus", "no such file", "loginctl enable-linger 1000")
		want(t, o, SystemdSystem, "uid 1000 may not ask")
	})
}

// A bus that takes the connection and says nothing must not hold the run for ever.
func TestSilentBusIsBounded(t *testing.T) {
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll("/run/systemd") }()
	if err := os.MkdirAll("/run/dbus", 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll("/run/dbus") }()
	l, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(l) }()
	if err := errors.Join(syscall.Bind(l, &syscall.SockaddrUnix{Name: "/run/dbus/system_bus_socket"}), syscall.Listen(l, 8)); err != nil {
		t.Fatal(err)
	}
	s := newSandbox(t)
	begin := time.Now()
	_, o := s.open(s.attr(0), openSpec{Ways: []string{SystemdSystem}})
	if d := time.Since(begin); o.Path != "" || d > 2*systemdWait {
		t.Errorf("after %v: %+v", d, o)
	}
}

// A killed run leaves its tree to RemoveTree, which puts the site back as it was.
func TestRemoveTreeAfterAKill(t *testing.T) {
	s := newSandbox(t)
	p, o := s.openVia("parent", s.attr(0), openSpec{Run: "dead"})
	if o.Error != "" {
		t.Fatalf("%+v", o)
	}
	trees, err := Trees()
	if err != nil || trees["dead"].Path != o.Path+"/sandrun-dead" {
		t.Fatalf("Trees: %v, %v", trees, err)
	}
	ref := trees["dead"]
	if alive, err := ref.Alive(); !alive || err != nil {
		t.Errorf("Alive of a live run: %v, %v", alive, err)
	}
	b, err := os.ReadFile(ref.Path + "/supervisor/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	victim, err := os.Open(ref.Path + "/machine/main")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Close() }()
	orphan := start(t, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(victim.Fd())}, "sleep")
	orphan.line()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.wait()
	if alive, err := ref.Alive(); alive || err != nil {
		t.Errorf("Alive of a dead run: %v, %v", alive, err)
	}
	if err := RemoveTree(t.Context(), ref.Path); err != nil {
		t.Fatal(err)
	}
	if sig := orphan.wait(); sig != syscall.SIGKILL {
		t.Errorf("the orphan ended with %v", sig)
	}
	if left := treeOf(s.path); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := RemoveTree(t.Context(), ref.Path); err != nil {
		t.Errorf("RemoveTree of a tree that is gone: %v", err)
	}
}

func TestRemoveTreeRefuses(t *testing.T) {
	tree := openTree(t, testMachine)
	foreign := newSandbox(t)
	plain := filepath.Join(t.TempDir(), "sandrun-plain")
	if err := os.MkdirAll(plain+"/supervisor", 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "sandrun-link")
	if err := os.Symlink(foreign.path, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		foreign.path, plain, link, tree.Path(), "sandrun-x", "/", "/sys/fs/cgroup",
		"/sys/fs/cgroup/" + outerName, "/sys/fs/cgroup/sandrun-", "/sys/fs/cgroup/sandrun-x.scope",
		tree.Path() + "/../..", tree.Machine().Path(),
	} {
		var fe *FileError
		if err := RemoveTree(t.Context(), dir); !errors.As(err, &fe) || fe.Path == "" {
			t.Errorf("RemoveTree(%q): %v", dir, err)
		}
	}
	for _, dir := range []string{foreign.path, plain, tree.Path()} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s is gone: %v", dir, err)
		}
	}
}

// The cap on swap is a must where there is swap.
func TestMissingSwapLimit(t *testing.T) {
	dir := t.TempDir() // stands for the cgroup of a kernel that does not account for swap
	for _, f := range []string{"memory.max", "pids.max"} {
		write(t, dir+"/"+f, "max")
		if err := os.Chmod(dir+"/"+f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := sys.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sys.CloseFD(fd) }()
	n := &Node{path: dir, fd: fd, events: -1}
	if swapTotal() == 0 {
		t.Fatal("these tests need swap in the guest")
	}
	err = n.apply(Limits{Memory: 1 << 20, Pids: 100})
	var fe *FileError
	if !errors.As(err, &fe) || fe.Path != dir+"/memory.swap.max" || fe.Value != "0" || !strings.Contains(fe.Fix, "swapoff -a") {
		t.Errorf("with swap: %#v", err)
	}
	if got := readFile(dir + "/memory.max"); got != "max" {
		t.Errorf("memory.max was written all the same: %s", got)
	}
	swapOff(t)
	if err := n.apply(Limits{Memory: 1 << 20, Pids: 100}); err != nil {
		t.Errorf("without swap there is nothing to cap: %v", err)
	}
}

// swapOff takes the guest's swap away for the rest of a test.
func swapOff(t *testing.T) {
	t.Helper()
	lines := strings.Split(readFile("/proc/swaps"), "\n")
	if len(lines) != 2 {
		t.Fatalf("these tests need one swap device in the guest: %q", lines)
	}
	device := strings.Fields(lines[1])[0]
	if out, err := exec.Command("swapoff", device).CombinedOutput(); err != nil {
		t.Fatalf("swapoff: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("swapon", device).CombinedOutput(); err != nil {
			t.Errorf("swapon: %v: %s", err, out)
		}
	})
}
