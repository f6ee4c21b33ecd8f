package sys

import "golang.org/x/sys/unix"

// MemfdCreate returns a descriptor of an anonymous file in memory, memfd_create(2).
// The descriptor is closed on exec. Its pages are charged, as shmem, to the
// cgroup of the process that first writes them.
func MemfdCreate(name string) (int, error) {
	return unix.MemfdCreate(name, unix.MFD_CLOEXEC)
}

// SetPipeSize asks for a pipe that holds at least size bytes and returns what it
// holds now, fcntl(2) F_SETPIPE_SZ. Above /proc/sys/fs/pipe-max-size it is
// EPERM without CAP_SYS_RESOURCE.
func SetPipeSize(fd, size int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size)
}
