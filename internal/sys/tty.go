package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Termios is the state of a terminal, termios(3).
type Termios = unix.Termios

// A Winsize is the size of a terminal in rows and columns, ioctl_tty(2).
type Winsize = unix.Winsize

// IsTerminal reports whether a descriptor is a terminal; isatty(3).
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// GetTermios returns the state of a terminal, TCGETS.
func GetTermios(fd int) (*Termios, error) { return unix.IoctlGetTermios(fd, unix.TCGETS) }

// SetTermios sets the state of a terminal once its output has drained, TCSETSW.
// From a background process group it raises SIGTTOU.
func SetTermios(fd int, t *Termios) error { return unix.IoctlSetTermios(fd, unix.TCSETSW, t) }

// RawTermios returns a copy of t in which the terminal passes every byte both
// ways unchanged, as cfmakeraw(3).
func RawTermios(t *Termios) *Termios {
	n := *t
	n.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	n.Oflag &^= unix.OPOST
	n.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	n.Cflag &^= unix.CSIZE | unix.PARENB
	n.Cflag |= unix.CS8
	n.Cc[unix.VMIN], n.Cc[unix.VTIME] = 1, 0
	return &n
}

// GetWinsize returns the size of a terminal, TIOCGWINSZ.
func GetWinsize(fd int) (*Winsize, error) { return unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ) }

// SetWinsize sets the size of a terminal, TIOCSWINSZ; a change raises SIGWINCH in
// its foreground process group.
func SetWinsize(fd int, ws *Winsize) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, ws) }

// TerminalGroup returns the foreground process group of a terminal, TIOCGPGRP;
// ENOTTY if it is not the controlling terminal of this process.
func TerminalGroup(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCGPGRP) }

// OpenSerial opens a serial line for reading and writing with every byte passed
// unchanged. Reads and writes block.
func OpenSerial(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		err = unix.IoctlSetTermios(fd, unix.TCSETS, RawTermios(t))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make %s raw: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenPTY opens a pseudo-terminal: its master, known to the runtime's poller, and
// its terminal, which does not become the controlling one; pty(7).
func OpenPTY() (master, terminal *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock a pseudo-terminal: %w", err)
	}
	// TIOCGPTPEER needs no path: it works whatever is mounted on /dev/pts.
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, fmt.Errorf("open the terminal of a pseudo-terminal: %w", errno)
	}
	return master, os.NewFile(peer, "pts"), nil
}
