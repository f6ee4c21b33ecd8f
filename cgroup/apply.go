package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

var pageSize = int64(os.Getpagesize())

// apply writes the caps into a fresh cgroup that no process has joined, and
// reads each back before it writes the next. Swap comes first: from the moment
// that memory.max holds, no page can slip past it into swap.
func (n *Node) apply(l Limits) error {
	if err := l.Validate(); err != nil {
		return &FileError{Op: "write", Path: n.path, Err: err, Fix: "give each cap a value that the kernel can hold"}
	}
	err := n.put("memory.swap.max", l.Swap, l.Swap/pageSize*pageSize)
	if errors.Is(err, fs.ErrNotExist) {
		err = noSwapLimit(err, swapTotal())
	}
	if err != nil {
		return err
	}
	if err := n.put("memory.max", l.Memory, l.Memory/pageSize*pageSize); err != nil {
		return err
	}
	if err := n.put("pids.max", l.Pids, l.Pids); err != nil {
		return err
	}
	if l.OOMGroup {
		if err := n.put("memory.oom.group", 1, 1); err != nil {
			return err
		}
	}
	if l.CPUs > 0 {
		var b [48]byte
		v := strconv.AppendInt(b[:0], l.quota(), 10)
		v = strconv.AppendInt(append(v, ' '), cpuPeriod, 10)
		if err := n.exchange("cpu.max", v, v); err != nil {
			return err
		}
	}
	n.limits = l
	return nil
}

// put writes a number and wants want back.
func (n *Node) put(file string, v, want int64) error {
	var a, b [24]byte
	return n.exchange(file, strconv.AppendInt(a[:0], v, 10), strconv.AppendInt(b[:0], want, 10))
}

func (n *Node) exchange(file string, value, want []byte) error {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	k, err := sys.ExchangeFileAt(n.fd, file, value, buf[:])
	if err != nil {
		return &FileError{Op: "write", Path: n.path + "/" + file, Value: string(value), Err: err, Fix: fixFor(file, err)}
	}
	if got := bytes.TrimSuffix(buf[:k], []byte{'\n'}); !bytes.Equal(got, want) {
		return &FileError{
			Op: "read back", Path: n.path + "/" + file, Value: string(value),
			Err: fmt.Errorf("the kernel holds %q, not %q", got, want),
			Fix: "the cap would not be what was asked for; choose a value that this kernel can hold",
		}
	}
	return nil
}

// fixFor is the way out when a cap could not be written.
func fixFor(file string, err error) string {
	controller, _, _ := bytes.Cut([]byte(file), []byte{'.'})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "the " + string(controller) + " controller is not enabled here; run 'sandrun doctor'"
	case errors.Is(err, fs.ErrPermission):
		return "the cgroup is not delegated to this user; run 'sandrun doctor'"
	case errors.Is(err, syscall.EROFS):
		return "the cgroup file system is mounted read-only; run 'sandrun doctor'"
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		return "the kernel does not take this value"
	}
	return "run 'sandrun doctor'"
}

// noSwapLimit decides what a missing memory.swap.max means: nothing on a machine
// without swap, else that swap would be used without a cap.
func noSwapLimit(err error, total int64) error {
	if total == 0 {
		return nil
	}
	var fe *FileError
	if errors.As(err, &fe) {
		fe.Fix = fmt.Sprintf("this kernel does not account for swap and the machine has %d bytes of it; "+
			"turn swap off with 'swapoff -a', or boot with swapaccount=1", total)
	}
	return err
}

// swapTotal is the machine's swap in bytes; sysinfo(2). It is asked of the
// kernel and not of /proc/meminfo, which a container may have replaced.
func swapTotal() int64 {
	var si syscall.Sysinfo_t
	if err := syscall.Sysinfo(&si); err != nil {
		return -1 // cannot tell: count as "has swap", so that a missing cap stays an error
	}
	return int64(si.Totalswap) * int64(si.Unit)
}

// fixForJoin is the way out when a process could not be moved into a cgroup.
func fixForJoin(err error) string {
	switch {
	case errors.Is(err, syscall.ESRCH):
		return "the process has ended"
	case errors.Is(err, fs.ErrPermission):
		return "moving needs the right to write cgroup.procs here and in the cgroup above both places"
	case errors.Is(err, syscall.EBUSY):
		return "a cgroup whose children have limits takes no process of its own"
	}
	return "run 'sandrun doctor'"
}

// fixForSite is the way out when a cgroup does not let this user build in it.
func fixForSite(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the cgroup file system is mounted read-only: mount it read-write, or use the guest kernel: --kernel guest"
	case errors.Is(err, fs.ErrPermission):
		return "it is not delegated to this user: start sandrun with systemd-run --user --scope -p Delegate=yes, or use the guest kernel: --kernel guest"
	}
	return "run 'sandrun doctor'"
}

// fixForController is the way out when a controller could not be enabled.
func fixForController(dir int, controller string, err error) string {
	var buf [256]byte
	n, rerr := sys.ReadFileAt(dir, "cgroup.controllers", buf[:])
	if rerr == nil && !slices.Contains(strings.Fields(string(buf[:n])), controller) {
		return fmt.Sprintf("the cgroup above does not hand the %s controller down, only %q: add it there (systemd: Delegate=cpu memory pids), or use the guest kernel: --kernel guest", controller, strings.TrimSpace(string(buf[:n])))
	}
	if errors.Is(err, syscall.EBUSY) {
		return "the cgroup holds processes of its own: start sandrun in a scope of its own: systemd-run --user --scope -p Delegate=yes"
	}
	return fixForSite(err)
}
