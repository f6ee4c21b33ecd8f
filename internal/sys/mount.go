package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of Mount, mount(2).
const (
	MountReadOnly = unix.MS_RDONLY
	MountNoSUID   = unix.MS_NOSUID
	MountNoDev    = unix.MS_NODEV
	MountNoExec   = unix.MS_NOEXEC
)

// Mount mounts a file system; mount(2).
func Mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// MoveMount moves a mount, and those below it, to another place; MS_MOVE.
func MoveMount(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the mount %s to %s: %w", from, to, err)
	}
	return nil
}

// DetachMount takes a mount and those below it out of the tree at once; what is
// open stays usable. umount2(2), MNT_DETACH.
func DetachMount(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach %s: %w", target, err)
	}
	return nil
}

// PivotRoot makes newRoot, a mount, the root of this mount namespace and leaves
// the old root detached: nothing can reach it by a path. pivot_root(2), "pivot_root
// ('.', '.')". The working directory is the new root afterwards.
func PivotRoot(newRoot string) error {
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("chdir %s: %w", newRoot, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root to %s: %w", newRoot, err)
	}
	// The old root now lies over the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir /: %w", err)
	}
	return nil
}

// A Space is what a file system has free for this user and whether programs may
// be run from it.
type Space struct {
	Free   int64 // bytes
	NoExec bool  // mounted noexec
}

// SpaceOf returns the space of the file system that holds path; statfs(2).
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	return Space{Free: int64(st.Bavail) * st.Bsize, NoExec: st.Flags&unix.ST_NOEXEC != 0}, nil
}

// Writable reports, by access(2), why a directory is not writable to this process.
func Writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

// SwapOn enables swapping on a block device or file with a swap signature; swapon(2).
func SwapOn(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
		return fmt.Errorf("swapon %s: %w", path, errno)
	}
	return nil
}
