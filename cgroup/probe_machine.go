package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// anyProgram is started by the probes that need a process; POSIX has it.
const anyProgram = "/bin/true"

// probeClone tries CLONE_INTO_CGROUP (Linux 5.7). Without a leaf a descriptor
// that is no cgroup tells: a kernel that knows the flag says EBADF.
func probeClone(leaf *Leaf) Check {
	c := Check{Name: "CLONE_INTO_CGROUP"}
	cmd := exec.Command(anyProgram)
	var err error
	if leaf != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: leaf.FD()}
		err = cmd.Run()
	} else {
		null, oerr := os.Open(os.DevNull)
		if oerr != nil {
			c.State, c.Detail = Unknown, oerr.Error()
			return c
		}
		defer func() { _ = null.Close() }()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(null.Fd())}
		err = cmd.Run()
		if errors.Is(err, syscall.EBADF) {
			err = nil
		}
	}
	switch {
	case err == nil && leaf == nil:
		c.State, c.Detail = Yes, "the kernel knows it"
	case err == nil:
		c.State, c.Detail = Yes, "a process starts in its leaf"
	case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EPERM):
		c.State, c.Detail = No, fmt.Sprintf("clone3: %v: a process starts outside and is moved", errors.Unwrap(err))
		c.Fix = "Linux 5.7 or newer, and a container's seccomp filter that lets clone3 through"
	default:
		c.State, c.Detail = Unknown, err.Error()
	}
	return c
}

// probeMachine looks at what needs no leaf.
func probeMachine() []Check {
	return []Check{
		probeKernel(), probeExitInfo(), probeKmsg(), probeSystemd(), probeMemory(),
		probeUserNamespaces(), probeSeccomp(), probeFilesystem("overlay", "overlayfs"), probeFuse(),
	}
}

func probeKernel() Check {
	c := Check{Name: "kernel", State: Yes, Detail: "Linux " + sys.KernelRelease()}
	major, minor, ok := release(sys.KernelRelease())
	switch {
	case !ok:
		c.State = Unknown
	case major < 5 || major == 5 && minor < 14:
		c.State, c.Fix = No, "Linux 5.14 or newer has all that a verdict needs; sandrun works on older ones with less evidence"
	}
	return c
}

// release reads the numbers of "6.18.44-name".
func release(s string) (major, minor int, ok bool) {
	a, rest, ok := strings.Cut(s, ".")
	if !ok {
		return 0, 0, false
	}
	b := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		b = rest[:i]
	}
	major, err1 := strconv.Atoi(a)
	minor, err2 := strconv.Atoi(b)
	return major, minor, err1 == nil && err2 == nil
}

// probeExitInfo reaps a process and asks its pidfd how it ended (PIDFD_INFO_EXIT).
func probeExitInfo() Check {
	c := Check{Name: "exit status by pidfd"}
	cmd := exec.Command(anyProgram)
	if err := cmd.Start(); err != nil {
		c.State, c.Detail = Unknown, err.Error()
		return c
	}
	fd, err := sys.OpenPidfd(cmd.Process.Pid)
	werr := cmd.Wait()
	if err != nil || werr != nil {
		c.State, c.Detail = Unknown, fmt.Sprint(errors.Join(err, werr))
		return c
	}
	defer func() { _ = fd.Close() }()
	_, err = fd.Wait(100 * time.Millisecond)
	switch {
	case err == nil:
		c.State, c.Detail = Yes, "the status of any worker is known"
	case errors.Is(err, sys.ErrStatusUnknown):
		c.State, c.Detail = No, "of a worker that its own parent reaps at once, only the end is known, not the status"
		c.Fix = "Linux 6.15 or newer"
	default:
		c.State, c.Detail = Unknown, err.Error()
	}
	return c
}

func probeKmsg() Check {
	c := Check{Name: "kernel log", State: Yes, Detail: kmsg + " can be read"}
	l, err := OpenOOMLog()
	if err != nil {
		c.State, c.Detail = No, "memory at the moment of a kill is sampled: "+strip(err)
		c.Fix = "as root: sysctl kernel.dmesg_restrict=0"
		if !errors.Is(err, fs.ErrPermission) {
			c.Fix = ""
		}
		return c
	}
	_ = l.Close()
	return c
}

func probeSystemd() Check {
	c := Check{Name: "systemd"}
	if !systemdBooted() {
		c.State, c.Detail = No, "not the init here; a delegated cgroup, root or the guest kernel serves instead"
		return c
	}
	out, err := exec.Command("systemctl", "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	f := strings.Fields(first) // systemd 252 (252.38-1~deb12u1)
	if err != nil || len(f) < 2 {
		c.State, c.Detail = Unknown, fmt.Sprintf("systemctl --version says %q: %v", first, err)
		return c
	}
	c.State, c.Detail = Yes, first
	if v, err := strconv.Atoi(f[1]); err == nil && v < 252 && os.Geteuid() != 0 {
		c.State = No
		c.Detail += ": it hands users memory and pids, but not cpu"
		c.Fix = "systemctl edit user@.service: [Service] Delegate=cpu memory pids"
	}
	return c
}

func probeMemory() Check {
	c := Check{Name: "memory"}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		c.State, c.Detail = Unknown, err.Error()
		return c
	}
	kB := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if v, err := parseUint([]byte(strings.TrimSuffix(strings.TrimSpace(value), " kB"))); err == nil {
			kB[key] = v
		}
	}
	c.State = Yes
	c.Detail = fmt.Sprintf("%d of %d MiB available, swap %d of %d MiB free",
		kB["MemAvailable"]>>10, kB["MemTotal"]>>10, kB["SwapFree"]>>10, kB["SwapTotal"]>>10)
	const least = 512 << 10 // kB: a small worker beside a small machine
	if kB["MemAvailable"] < least {
		c.State, c.Fix = No, "free some memory: the smallest profiles need 512 MiB"
	}
	return c
}

// probeUserNamespaces starts a process in a user namespace of its own.
func probeUserNamespaces() Check {
	c := Check{Name: "user namespaces"}
	cmd := exec.Command(anyProgram)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	err := cmd.Run()
	switch {
	case err == nil:
		c.State, c.Detail = Yes, "can be made"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		c.State, c.Detail = No, "containers need them: "+err.Error()
		c.Fix = "as root: sysctl user.max_user_namespaces=15000; on Debian kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
	default:
		c.State, c.Detail = Unknown, err.Error()
	}
	return c
}

func probeSeccomp() Check {
	c := Check{Name: "seccomp"}
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	switch {
	case err == nil:
		c.State, c.Detail = Yes, strings.TrimSpace(string(b))
	case errors.Is(err, fs.ErrNotExist):
		c.State, c.Detail, c.Fix = No, "this kernel has no seccomp filters", "a kernel with CONFIG_SECCOMP_FILTER=y"
	default:
		c.State, c.Detail = Unknown, err.Error()
	}
	return c
}

func probeFilesystem(name, title string) Check {
	c := Check{Name: title}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		c.State, c.Detail = Unknown, err.Error()
		return c
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			c.State, c.Detail = Yes, "the kernel has it"
			return c
		}
	}
	c.State, c.Detail = Unknown, "not loaded; it may be a module"
	c.Fix = "as root: modprobe " + name
	return c
}

func probeFuse() Check {
	c := Check{Name: "FUSE", State: Yes, Detail: "/dev/fuse can be opened"}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		c.State, c.Detail, c.Fix = No, err.Error(), "as root: modprobe fuse; in a container: --device /dev/fuse"
		return c
	}
	_ = f.Close()
	return c
}
