package sys

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IsCgroup2 reports whether an open file lies on a cgroup v2 file system;
// fstatfs(2), CGROUP2_SUPER_MAGIC of linux/magic.h.
func IsCgroup2(fd int) (bool, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false, err
	}
	return st.Type == unix.CGROUP2_SUPER_MAGIC, nil
}

// OpenDir opens a directory by its absolute path, for reading and for the calls
// below that take a directory. A symbolic link is not followed.
func OpenDir(path string) (int, error) {
	return open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// OpenDirAt opens the directory name under dir, as OpenDir does.
func OpenDirAt(dir int, name string) (int, error) {
	return open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// OpenAt opens the file name under dir for reading.
func OpenAt(dir int, name string) (int, error) { return open(dir, name, unix.O_RDONLY) }

// CloseFD closes a raw descriptor.
func CloseFD(fd int) error { return unix.Close(fd) }

// MkdirAt makes the directory name under dir; EEXIST if it is there already.
func MkdirAt(dir int, name string) error {
	return retry(func() error { return unix.Mkdirat(dir, name, 0o755) })
}

// RmdirAt removes the directory name under dir.
func RmdirAt(dir int, name string) error {
	return retry(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

// AccessWrite reports, as nil, that this process may write the file name under
// dir with its effective rights; faccessat2(2), AT_EACCESS.
func AccessWrite(dir int, name string) error {
	return unix.Faccessat(dir, name, unix.W_OK, unix.AT_EACCESS)
}

// ReadFileAt reads the start of the file name under dir into buf. A kernfs file
// gives all it holds, or as much as fits, to one read.
func ReadFileAt(dir int, name string, buf []byte) (int, error) {
	fd, err := OpenAt(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := Pread(fd, buf, 0)
	_ = unix.Close(fd)
	return n, err
}

// WriteFileAt writes data to the file name under dir in one write(2).
func WriteFileAt(dir int, name string, data []byte) error {
	fd, err := open(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	err = write(fd, data)
	_ = unix.Close(fd)
	return err
}

// ExchangeFileAt writes data to the file name under dir and reads back, through
// the same descriptor, what the kernel then holds: four system calls for what
// takes six through two opens. A file that can be written but not read gives
// its own error from open.
func ExchangeFileAt(dir int, name string, data, buf []byte) (n int, err error) {
	fd, err := open(dir, name, unix.O_RDWR)
	if err != nil {
		return 0, err
	}
	if err = write(fd, data); err == nil {
		n, err = Pread(fd, buf, 0)
	}
	_ = unix.Close(fd)
	return n, err
}

// Pread reads from an offset of an open file.
func Pread(fd int, buf []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(fd, buf, off)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0), err
	}
}

// PollPri waits until an open kernfs file such as cgroup.events changes after
// its last read through fd (POLLPRI), at most for d, and reports whether it did.
func PollPri(fd int, d time.Duration) (bool, error) {
	end := time.Now().Add(d)
	for {
		ms := (max(time.Until(end), 0) + time.Millisecond - 1) / time.Millisecond
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		n, err := unix.Poll(p, int(ms))
		if err == unix.EINTR {
			continue
		}
		return n > 0, err
	}
}

// LockFD takes an exclusive advisory lock on an open file or directory, flock(2),
// without waiting; EWOULDBLOCK if another holds it. Closing fd releases it.
func LockFD(fd int) error {
	return retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

// Xattr gives an extended attribute of a file; ENODATA if it has none of that name.
func Xattr(path, name string) (string, error) {
	var buf [64]byte
	n, err := unix.Getxattr(path, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// A RecordFile is a character device that gives one record to each read, such as
// /dev/kmsg, opened without blocking.
type RecordFile struct{ fd int }

// OpenRecordFile opens the device at path for reading, behind its last record.
func OpenRecordFile(path string) (*RecordFile, error) {
	fd, err := open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &RecordFile{fd: fd}, nil
}

// Next reads one record into buf. It returns 0 and no error when there is none.
// lost says that records were overwritten before they were read (EPIPE).
func (r *RecordFile) Next(buf []byte) (n int, lost bool, err error) {
	for {
		n, err := unix.Read(r.fd, buf)
		switch {
		case err == nil:
			return n, lost, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EPIPE):
			lost = true
		case errors.Is(err, unix.EAGAIN):
			return 0, lost, nil
		default:
			return 0, lost, err
		}
	}
}

// Close releases the device.
func (r *RecordFile) Close() error { return unix.Close(r.fd) }

func open(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func write(fd int, data []byte) error {
	return retry(func() error {
		n, err := syscall.Write(fd, data)
		if err == nil && n != len(data) {
			return unix.EIO
		}
		return err
	})
}

// retry repeats a call that a signal interrupted: the Go runtime preempts threads by signal.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
