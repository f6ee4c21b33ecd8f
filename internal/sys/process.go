package sys

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Peer is the process at the other end of a unix socket, as the kernel saw it
// at connect(2); unix(7), SO_PEERCRED.
type Peer struct {
	Pid, UID, GID int
}

// PeerOf returns the peer of a connected unix socket. A peer outside this pid
// namespace has pid 0, which is an error.
func PeerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if cerr != nil {
		return Peer{}, fmt.Errorf("getsockopt SO_PEERCRED: %w", cerr)
	}
	if cred.Pid == 0 {
		return Peer{}, fmt.Errorf("SO_PEERCRED names no process: the peer is in a pid namespace that is not visible here")
	}
	return Peer{Pid: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}

// HungUp reports whether the peer of a connected unix socket has closed it, which it
// does at the latest by dying; poll(2), POLLHUP.
func HungUp(c *net.UnixConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	poll := []unix.PollFd{{}}
	var perr error
	if err := raw.Control(func(fd uintptr) {
		poll[0].Fd = int32(fd)
		_, perr = unix.Poll(poll, 0)
	}); err != nil {
		return false, err
	}
	return poll[0].Revents&unix.POLLHUP != 0, perr
}

// Kill sends a signal to one process; kill(2).
func Kill(pid int, sig syscall.Signal) error { return unix.Kill(pid, sig) }

// ForegroundGroup returns the process group that reads from the controlling
// terminal; ENXIO when this process has none; tcgetpgrp(3).
func ForegroundGroup() (int, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tty.Close() }()
	return unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
}

// SameFile reports whether two descriptors are one open file or one file.
func SameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// TryLock takes an exclusive flock(2) on f without waiting; false when another
// open file description holds it.
func TryLock(f *os.File) (bool, error) {
	err := LockFD(int(f.Fd()))
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("flock %s: %w", f.Name(), err)
	}
	return true, nil
}

// KernelRelease returns what `uname -r` prints.
func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// OOMScoreAdj returns this process's own oom_score_adj, -1000 to 1000;
// proc_pid_oom_score_adj(5).
func OOMScoreAdj() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// SignalName returns a signal's name, such as SIGKILL.
func SignalName(s syscall.Signal) string { return unix.SignalName(s) }

// LockFile takes an exclusive flock(2) on f and waits for it.
func LockFile(f *os.File) error {
	if err := retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) }); err != nil {
		return fmt.Errorf("flock %s: %w", f.Name(), err)
	}
	return nil
}

// OwnedDir reports as an error whatever would let another user put things into
// the directory at path: a symbolic link, another owner, write permission for others.
func OwnedDir(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not %d", path, st.Uid, os.Geteuid())
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %o)", path, st.Mode&0o777)
	}
	return nil
}

// KernelAtLeast compares the release of the running kernel.
func KernelAtLeast(major, minor int) bool {
	v := kernelVersion()
	return v[0] > major || v[0] == major && v[1] >= minor
}

var kernelVersion = sync.OnceValue(func() (v [2]int) {
	_, _ = fmt.Sscanf(KernelRelease(), "%d.%d", &v[0], &v[1]) // an unreadable release is an old one
	return v
})

// Inode returns the inode number of an open file; on a cgroup v2 directory that
// is the cgroup's id.
func Inode(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// KernelLog returns what the kernel's ring buffer holds, its newest part if that is
// more than 256 KiB; syslog(2), SYSLOG_ACTION_READ_ALL. EPERM where the user may not
// read it.
func KernelLog() (string, error) {
	const readAll = 3 // SYSLOG_ACTION_READ_ALL
	buf := make([]byte, 256<<10)
	n, err := unix.Klogctl(readAll, buf)
	return string(buf[:max(n, 0)]), err
}
