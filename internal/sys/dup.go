package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Dup returns another descriptor of an open file, which keeps its mode: (*os.File).Fd
// would make it blocking. It is closed on exec.
func Dup(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := conn.Control(func(old uintptr) {
		fd, derr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, &os.PathError{Op: "dup", Path: f.Name(), Err: derr}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Control calls f with the descriptor of an open file, whose mode it leaves alone.
func Control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// StopSelf stops this process, as SIGSTOP does, and returns once it was continued.
// The caller holds runtime.LockOSThread: the signal is for its own thread, which
// stops before it returns here.
func StopSelf() error { return unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP) }

// LeadsSession reports whether this process is the leader of its session, which
// no shell can continue once it was stopped.
func LeadsSession() bool {
	sid, err := unix.Getsid(0)
	return err == nil && sid == unix.Getpid()
}
