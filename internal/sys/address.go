package sys

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetAddress gives a network interface its IPv4 address and network mask;
// netdevice(7), SIOCSIFADDR and SIOCSIFNETMASK.
func SetAddress(name string, prefix netip.Prefix) error {
	if !prefix.IsValid() || !prefix.Addr().Is4() {
		return fmt.Errorf("address of interface %s: %v is not an IPv4 prefix", name, prefix)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(s) }()
	mask := ^uint32(0) << (32 - prefix.Bits())
	for _, set := range []struct {
		request uint
		value   [4]byte
	}{
		{unix.SIOCSIFADDR, prefix.Addr().As4()},
		{unix.SIOCSIFNETMASK, [4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}},
	} {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if err := ifr.SetInet4Addr(set.value[:]); err != nil {
			return fmt.Errorf("address of interface %s: %w", name, err)
		}
		if err := unix.IoctlIfreq(s, set.request, ifr); err != nil {
			return fmt.Errorf("set address %v of interface %s: %w", prefix, name, err)
		}
	}
	return nil
}

// routeEntry is struct rtentry of linux/route.h.
type routeEntry struct {
	_           uint64
	destination unix.RawSockaddrInet4
	gateway     unix.RawSockaddrInet4
	mask        unix.RawSockaddrInet4
	flags       uint16
	_           int16
	_           uint64
	_           uintptr
	metric      int16
	device      *byte
	mtu, window uint64
	rtt         uint16
}

// SetDefaultRoute sends what no other route takes to an IPv4 gateway; rtnetlink's
// elder, SIOCADDRT.
func SetDefaultRoute(gateway netip.Addr) error {
	if !gateway.Is4() {
		return fmt.Errorf("default route: gateway %v is not an IPv4 address", gateway)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(s) }()
	entry := routeEntry{
		destination: unix.RawSockaddrInet4{Family: unix.AF_INET},
		gateway:     unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: gateway.As4()},
		mask:        unix.RawSockaddrInet4{Family: unix.AF_INET},
		flags:       unix.RTF_UP | unix.RTF_GATEWAY,
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCADDRT, uintptr(unsafe.Pointer(&entry))); errno != 0 {
		return fmt.Errorf("default route to %v: %w", gateway, errno)
	}
	return nil
}
