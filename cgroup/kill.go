package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// RemoveWait bounds how long a removal waits for killed processes to be gone. A
// task in an uninterruptible sleep (state D) dies only when its I/O ends.
const RemoveWait = 10 * time.Second

// lastChance is what a removal gets whose context is done before it begins: an
// interrupted run must still clear up, and killed processes need some milliseconds.
const lastChance = time.Second

// removal bounds a removal.
func removal(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return context.WithTimeout(context.WithoutCancel(ctx), lastChance)
	}
	return context.WithTimeout(ctx, RemoveWait)
}

// slice is how long a wait sleeps before it looks at its context again.
const slice = 50 * time.Millisecond

// Kill sends SIGKILL to every process in the cgroup and below it, at once:
// cgroup.kill (Linux 5.14). On older kernels the cgroup is frozen first, so that
// a fork bomb cannot outrun the signals.
func (n *Node) Kill() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return nil
	}
	err := sys.WriteFileAt(n.fd, "cgroup.kill", []byte("1"))
	if errors.Is(err, fs.ErrNotExist) {
		return n.killFrozen()
	}
	if err != nil {
		return n.fail("write", "cgroup.kill", "1", err)
	}
	return nil
}

// killFrozen is Kill for kernels without cgroup.kill. A frozen task still dies
// of SIGKILL (cgroup.freeze, Linux 5.2); without that file the signals go round
// by round until a round finds nobody new.
func (n *Node) killFrozen() error {
	if err := sys.WriteFileAt(n.fd, "cgroup.freeze", []byte("1")); err == nil {
		defer func() { _ = sys.WriteFileAt(n.fd, "cgroup.freeze", []byte("0")) }()
	}
	for range 100 {
		pids, err := procs(n.fd, n.path)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if pid <= 0 {
				return n.fail("read", "cgroup.procs", "", errors.New("a process of another pid namespace is in here"))
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return n.fail("read", "cgroup.procs", "", fmt.Errorf("kill %d: %w", pid, err))
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil // they were signaled; whoever waits for the cgroup to be empty says who stays
}

// Procs lists the processes in the cgroup and below it, in no order. A process
// of another pid namespace has the number 0.
func (n *Node) Procs() ([]int, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return nil, nil
	}
	return procs(n.fd, n.path)
}

func procs(dir int, path string) ([]int, error) {
	pids, err := ownProcs(dir, path)
	if err != nil {
		return nil, err
	}
	children, err := subdirs(dir, path)
	if err != nil {
		return nil, err
	}
	for _, name := range children {
		fd, err := sys.OpenDirAt(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, &FileError{Op: "open", Path: path + "/" + name, Err: err}
		}
		below, err := procs(fd, path+"/"+name)
		_ = sys.CloseFD(fd)
		if err != nil {
			return nil, err
		}
		pids = append(pids, below...)
	}
	return pids, nil
}

// ownProcs lists the processes of one cgroup without those below it. A threaded
// cgroup lists none (EOPNOTSUPP): its processes are in the domain above.
func ownProcs(dir int, path string) ([]int, error) {
	fd, err := sys.OpenAt(dir, "cgroup.procs")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{Op: "open", Path: path + "/cgroup.procs", Err: err}
	}
	f := os.NewFile(uintptr(fd), path+"/cgroup.procs")
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(f)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{Op: "read", Path: path + "/cgroup.procs", Err: err}
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, &FileError{Op: "read", Path: path + "/cgroup.procs", Err: err}
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// subdirs lists the cgroups right below one.
func subdirs(dir int, path string) ([]string, error) {
	fd, err := sys.OpenDirAt(dir, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	entries, err := f.ReadDir(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{Op: "read", Path: path, Err: err}
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// empty kills what is in the cgroup, if anything is, and waits until it is gone.
func empty(ctx context.Context, n *Node) error {
	populated, err := n.Populated()
	if err != nil || !populated {
		return err
	}
	if err := n.Kill(); err != nil {
		return err
	}
	gone, err := n.WaitEmpty(ctx)
	if err == nil && !gone {
		err = stays(n)
	}
	return err
}

// WaitEmpty waits until no process is left in the cgroup or below it, without
// killing any, and reports whether that came before ctx was done. It sleeps in
// the kernel, on cgroup.events, and looks at ctx every 50 ms.
func (n *Node) WaitEmpty(ctx context.Context) (bool, error) {
	for {
		populated, err := n.Populated()
		if err != nil || !populated {
			return err == nil, err
		}
		if ctx.Err() != nil {
			return false, nil
		}
		if err := n.waitEvent(slice); err != nil {
			return false, err
		}
	}
}

// waitEvent waits until cgroup.events changes after it was last read, at most for d.
func (n *Node) waitEvent(d time.Duration) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.events < 0 {
		return nil
	}
	if _, err := sys.PollPri(n.events, d); err != nil {
		return n.fail("read", "cgroup.events", "", err)
	}
	return nil
}

// stays is the error for processes that a SIGKILL did not end in time.
func stays(n *Node) error {
	pids, err := n.Procs()
	if err != nil {
		return err
	}
	const most = 8
	var who []string
	for i, pid := range pids {
		if i == most {
			who = append(who, fmt.Sprintf("and %d more", len(pids)-most))
			break
		}
		who = append(who, describe(pid))
	}
	return &FileError{
		Op: "remove", Path: n.path,
		Err: fmt.Errorf("killed, but still there: %s", strings.Join(who, ", ")),
		Fix: "a process in state D waits for I/O; run 'sandrun gc' when it has ended",
	}
}

// describe names a process: pid, command, state and what it waits for.
func describe(pid int) string {
	p, err := readStat(pid)
	if err != nil {
		return strconv.Itoa(pid)
	}
	s := fmt.Sprintf("%d (%s, state %c", pid, p.comm, p.state)
	if w, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)); err == nil && len(w) > 0 && string(w) != "0" {
		s += " in " + string(w)
	}
	return s + ")"
}

// removeDir removes the cgroup at dir, whose parent is open as parent, and all
// below it. A cgroup whose last process has just gone may be busy for some
// milliseconds, and one that a process is moved into again is emptied again.
func removeDir(ctx context.Context, parent int, dir string) error {
	name := path.Base(dir)
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, slice) {
		err := sys.RmdirAt(parent, name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) {
			return &FileError{Op: "remove", Path: dir, Err: err, Fix: fixFor(name, err)}
		}
		if err := clearDir(ctx, parent, path.Dir(dir), name); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return &FileError{Op: "remove", Path: dir, Err: fmt.Errorf("%w until the time was up", err), Fix: "run 'sandrun gc' later"}
		}
		time.Sleep(delay)
	}
}

// clearDir empties the cgroup name under parent and removes what is below it.
func clearDir(ctx context.Context, parent int, parentPath, name string) error {
	var n Node
	if err := n.open(parent, parentPath, name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer n.close()
	if err := empty(ctx, &n); err != nil {
		return err
	}
	children, err := subdirs(n.fd, n.path)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := removeDir(ctx, n.fd, n.path+"/"+child); err != nil {
			return err
		}
	}
	return nil
}
