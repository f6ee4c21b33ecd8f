package sys

import "golang.org/x/sys/unix"

// WaitReadable returns when fd can be read without blocking, at its end too, or
// when cancel can be; it reports whether it was fd. poll(2).
func WaitReadable(fd, cancel int) (bool, error) {
	fds := []unix.PollFd{
		{Fd: int32(fd), Events: unix.POLLIN},
		{Fd: int32(cancel), Events: unix.POLLIN},
	}
	for {
		n, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return false, err
		case fds[1].Revents != 0:
			return false, nil
		case n > 0:
			return true, nil
		}
	}
}

// PendingInput returns the bytes that a pipe or terminal holds unread; FIONREAD.
func PendingInput(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) }

// ReadableNow reports whether fd can be read without blocking, at its end too.
func ReadableNow(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	if err == unix.EINTR {
		return false, nil
	}
	return n > 0, err
}
