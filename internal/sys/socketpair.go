package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The types of SocketPair, socket(2).
const (
	SocketStream    = unix.SOCK_STREAM
	SocketSeqPacket = unix.SOCK_SEQPACKET
)

// SocketPair returns two connected Unix sockets, closed on exec, that the
// runtime's poller serves; socketpair(2). Each holds up to buffer bytes that its
// peer has not read yet, or as much of it as net.core.wmem_max allows.
func SocketPair(kind, buffer int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair")
	for _, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer); err != nil {
			_, _ = a.Close(), b.Close()
			return nil, nil, fmt.Errorf("setsockopt SO_SNDBUF %d: %w", buffer, err)
		}
	}
	return a, b, nil
}
