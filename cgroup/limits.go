package cgroup

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Limits are the hard caps of one cgroup. They are written, and read back,
// before a process joins. The zero value is invalid: it never means "unlimited".
type Limits struct {
	// Memory is memory.max in bytes. The kernel rounds it down to whole pages.
	Memory int64
	// Swap is memory.swap.max in bytes; 0 allows no swap (and no zswap).
	Swap int64
	// Pids is pids.max in tasks; a thread is a task.
	Pids int64
	// CPUs is cpu.max in cores, over a period of 100 ms. 0 leaves cpu.max alone.
	CPUs float64
	// OOMGroup is memory.oom.group: the out-of-memory killer ends the whole
	// cgroup, not one process of it (tasks with oom_score_adj -1000 excepted).
	OOMGroup bool
}

// cpuPeriod is the period of cpu.max in microseconds, the kernel's default.
const cpuPeriod = 100_000

// minQuota is the least quota that the kernel takes, in microseconds
// (kernel/sched/core.c, min_cfs_quota_period).
const minQuota = 1_000

// Validate reports the first field that the kernel could not hold.
func (l Limits) Validate() error {
	switch {
	case l.Memory <= 0:
		return fmt.Errorf("memory.max=%d: a cap must be at least one byte", l.Memory)
	case l.Swap < 0:
		return fmt.Errorf("memory.swap.max=%d: a cap cannot be negative (0 allows no swap)", l.Swap)
	case l.Pids <= 0:
		return fmt.Errorf("pids.max=%d: a cap must be at least one task", l.Pids)
	case math.IsNaN(l.CPUs) || l.CPUs < 0:
		return fmt.Errorf("cpu.max=%v cores: not a number of cores", l.CPUs)
	case l.CPUs > 0 && l.quota() < minQuota:
		return fmt.Errorf("cpu.max=%v cores: the least is %v", l.CPUs, float64(minQuota)/cpuPeriod)
	case l.CPUs > math.MaxInt32:
		return errors.New("cpu.max: more cores than a kernel can have")
	}
	return nil
}

// quota is the time in microseconds that cpu.max allows in one period.
func (l Limits) quota() int64 { return int64(math.Round(l.CPUs * cpuPeriod)) }

// String gives the caps as the kernel files hold them.
func (l Limits) String() string {
	s := "memory.max=" + strconv.FormatInt(l.Memory, 10) +
		" memory.swap.max=" + strconv.FormatInt(l.Swap, 10) +
		" pids.max=" + strconv.FormatInt(l.Pids, 10)
	if l.CPUs > 0 {
		s += fmt.Sprintf(" cpu.max=%d %d", l.quota(), cpuPeriod)
	}
	return s
}
