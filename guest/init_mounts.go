package guest

import (
	"errors"
	"os"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// A mount is one line of the guest's own fstab.
type mount struct {
	target, fstype string
	flags          uintptr
	data           string
	mkdir          bool // the target may have to be made, on a file system of the guest
	auto           bool // the kernel may have mounted it
}

const plain = sys.MountNoSUID | sys.MountNoDev | sys.MountNoExec

// firstMounts is what process 1 itself needs. Their targets are the host's and
// must exist: nothing is made on the host.
var firstMounts = []mount{
	{target: "/dev", fstype: "devtmpfs", flags: sys.MountNoSUID, data: "mode=755", auto: true},
	{target: "/proc", fstype: "proc", flags: plain},
	{target: "/run", fstype: "tmpfs", flags: sys.MountNoSUID | sys.MountNoDev, data: "mode=755"},
}

// mounts is the rest, as systemd and runc mount them:
// https://systemd.io/CONTAINER_INTERFACE, systemd's src/shared/mount-setup.c.
// memory_recursiveprot and nsdelegate are systemd's options for cgroup2.
var mounts = []mount{
	{target: "/sys", fstype: "sysfs", flags: plain},
	{target: "/sys/fs/cgroup", fstype: "cgroup2", flags: plain, data: "nsdelegate,memory_recursiveprot"},
	{target: "/dev/pts", fstype: "devpts", flags: sys.MountNoSUID | sys.MountNoExec, data: "newinstance,ptmxmode=0666,mode=620,gid=5", mkdir: true},
	{target: "/dev/shm", fstype: "tmpfs", flags: sys.MountNoSUID | sys.MountNoDev, data: "mode=1777", mkdir: true},
	{target: "/dev/mqueue", fstype: "mqueue", flags: plain, mkdir: true},
}

// links are those of devtmpfs that the kernel does not make; systemd's
// src/shared/dev-setup.c. The devpts above has its own ptmx.
var links = []struct{ name, target string }{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
}

func mountAll(table []mount) error {
	for _, m := range table {
		if m.mkdir {
			if err := os.MkdirAll(m.target, 0o755); err != nil {
				return err
			}
		}
		err := sys.Mount(m.fstype, m.target, m.fstype, m.flags, m.data)
		if err != nil && !(m.auto && errors.Is(err, syscall.EBUSY)) {
			return err
		}
	}
	return nil
}
