package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStatusUnknown says that a process has ended and this kernel does not tell how.
var ErrStatusUnknown = errors.New("exit status not visible on this kernel (Linux 6.15 shows it)")

// A Pidfd refers to one process, which need not be a child; pidfd_open(2).
type Pidfd struct {
	pid  int
	file *os.File
}

// OpenPidfd returns a Pidfd for the process pid; ESRCH if there is none.
func OpenPidfd(pid int) (*Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	// A non-blocking descriptor joins the runtime's poller: one epoll instance
	// serves every Pidfd, and waiting costs a goroutine, not a thread.
	return &Pidfd{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Close releases the descriptor; the process is not touched.
func (p *Pidfd) Close() error { return p.file.Close() }

// Ended reports, without waiting, whether the process has ended, reaped or not.
func (p *Pidfd) Ended() bool {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	poll := []unix.PollFd{{Events: unix.POLLIN}}
	err = conn.Control(func(fd uintptr) {
		poll[0].Fd = int32(fd)
		_, _ = unix.Poll(poll, 0) // an error leaves no event
	})
	return err == nil && poll[0].Revents&unix.POLLIN != 0
}

// reapSoon is how long a parent that waits for its child may take to reap it.
const reapSoon = 5 * time.Millisecond

// Wait returns the wait status of the process once it has ended, or
// ErrStatusUnknown. The status of a process that is not a child is with its pidfd
// once it was reaped (PIDFD_GET_INFO, PIDFD_INFO_EXIT, Linux 6.15), and in its
// /proc/PID/stat while it is a zombie. It waits at most linger for either after
// the process ended.
func (p *Pidfd) Wait(linger time.Duration) (syscall.WaitStatus, error) {
	if _, _, err := p.poll(time.Time{}, unix.POLLIN); err != nil {
		return 0, err
	}
	waits := []time.Duration{reapSoon, linger}
	if !KernelAtLeast(6, 15) {
		waits = []time.Duration{0, linger}
	}
	for _, d := range waits {
		if d > 0 {
			status, known, err := p.poll(time.Now().Add(d), unix.POLLHUP)
			if known || err != nil {
				return status, err
			}
		}
		if status, known := zombieStatus(p.pid); known {
			return status, nil
		}
	}
	return 0, ErrStatusUnknown
}

// poll waits for an event of the pidfd, POLLIN (the process has ended) or POLLHUP
// (it was reaped), and says with which status it ended, where that is known by then.
func (p *Pidfd) poll(deadline time.Time, event int16) (status syscall.WaitStatus, known bool, err error) {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	if err := p.file.SetReadDeadline(deadline); err != nil {
		return 0, false, err
	}
	err = conn.Read(func(fd uintptr) bool {
		if event == unix.POLLHUP {
			if status, known = exitInfo(fd); known {
				return true
			}
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: event}}
		_, err := unix.Poll(poll, 0)
		return err == nil && poll[0].Revents&event != 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	if event == unix.POLLHUP && !known { // reaped between the two questions
		err = conn.Control(func(fd uintptr) { status, known = exitInfo(fd) })
	}
	return status, known, err
}

// CgroupID returns the id of the cgroup v2 group that the process is in, which is
// the inode number of its directory (PIDFD_GET_INFO, Linux 6.13); 0 where the
// kernel does not tell.
func (p *Pidfd) CgroupID() uint64 {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return 0
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID}
	var asked error
	err = conn.Control(func(fd uintptr) { asked = unix.IoctlPidfdInfo(int(fd), &info) })
	if err != nil || asked != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0
	}
	return info.Cgroupid
}

// exitInfo asks the pidfd; the kernel answers once the process was reaped.
func exitInfo(fd uintptr) (syscall.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(int(fd), &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return syscall.WaitStatus(uint32(info.Exit_code)), true
}

// zombieStatus reads exit_code, the 52nd and last field of /proc/PID/stat, which
// is shown to those who may ptrace the process; proc_pid_stat(5).
func zombieStatus(pid int) (syscall.WaitStatus, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, false
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 50 || (f[0][0] != 'Z' && f[0][0] != 'X') {
		return 0, false
	}
	code, err := strconv.ParseUint(string(f[49]), 10, 32)
	if err != nil {
		return 0, false
	}
	return syscall.WaitStatus(code), code != 0 || mayTrace(pid)
}

// mayTrace tells a real exit code 0 from one that the kernel hides: it shows the
// field to root and to the process's own user; ptrace(2), PTRACE_MODE_READ_FSCREDS.
func mayTrace(pid int) bool {
	euid := os.Geteuid()
	if euid == 0 {
		return true
	}
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return err == nil && int(st.Uid) == euid
}
