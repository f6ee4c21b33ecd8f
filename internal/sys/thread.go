package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Affinity returns the processors that this thread may run on, in order;
// sched_getaffinity(2).
func Affinity() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// BindThread binds this thread, and what it forks, to one processor;
// sched_setaffinity(2). The caller holds runtime.LockOSThread.
func BindThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity %d: %w", cpu, err)
	}
	return nil
}

// ThreadUmask sets the file mode mask of this thread alone, and of what it forks;
// unshare(2) CLONE_FS, then umask(2). The caller holds runtime.LockOSThread and
// never unlocks: the thread's working directory is its own from here on.
func ThreadUmask(mask int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the file mode mask: %w", err)
	}
	unix.Umask(mask)
	return nil
}

// NoCore forbids a process core dumps; prlimit(2) RLIMIT_CORE.
func NoCore(pid int) error {
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("prlimit RLIMIT_CORE of process %d: %w", pid, err)
	}
	return nil
}

// AllFiles lets a process open as many files as it may allow itself; prlimit(2)
// RLIMIT_NOFILE.
func AllFiles(pid int) error {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit)
	if err == nil {
		limit.Cur = limit.Max
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil)
	}
	if err != nil {
		return fmt.Errorf("prlimit RLIMIT_NOFILE of process %d: %w", pid, err)
	}
	return nil
}

// AwaitExit returns when a child has ended, and leaves it for wait(2): until then
// its number is nobody else's. waitid(2) WNOWAIT.
func AwaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}
