package sys

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// An Inotify tells which of many files changed, through one descriptor;
// inotify(7). The kernel modifies cgroup.events, memory.events and pids.events
// in this sense when a value in them changes.
type Inotify struct{ file *os.File }

// NewInotify makes an Inotify. It takes one of the user's
// fs.inotify.max_user_instances (EMFILE when they are used up).
func NewInotify() (*Inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &Inotify{file: os.NewFile(uintptr(fd), "inotify")}, nil
}

// Watch reports changes of the file at path from now on, under the returned id.
// The same file gives the same id.
func (i *Inotify) Watch(path string) (id int, err error) {
	err = i.control(func(fd int) error {
		id, err = unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
		return err
	})
	if err != nil {
		return 0, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	return id, nil
}

// Unwatch ends the watch of id. A removed file ends its own: EINVAL then.
func (i *Inotify) Unwatch(id int) error {
	return i.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(id))
		return err
	})
}

// Next waits for changes and appends the ids of the files that changed to ids.
// overflow says that the queue was full and changes were lost: look at every
// file. After Close it returns os.ErrClosed.
func (i *Inotify) Next(ids []int) (changed []int, overflow bool, err error) {
	var buf [64 * unix.SizeofInotifyEvent]byte
	n, err := i.file.Read(buf[:])
	if err != nil {
		return ids, false, err
	}
	for off := 0; off+unix.SizeofInotifyEvent <= n; {
		// struct inotify_event: wd, mask, cookie, len, four bytes each, then len bytes of name.
		wd, mask := int32(binary.NativeEndian.Uint32(buf[off:])), binary.NativeEndian.Uint32(buf[off+4:])
		off += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[off+12:]))
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			overflow = true
		case mask&unix.IN_MODIFY != 0:
			ids = append(ids, int(wd))
		}
	}
	return ids, overflow, nil
}

// Close ends all watches and wakes Next.
func (i *Inotify) Close() error { return i.file.Close() }

func (i *Inotify) control(f func(fd int) error) error {
	conn, err := i.file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
