package supervisor

import (
	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/report"
)

// usage is the record of what a cgroup used: its peaks, its counters, and the
// largest sample, which may be zero.
func usage(l cgroup.Limits, p cgroup.Peaks, e cgroup.Events, best cgroup.Usage) report.Usage {
	u := report.Usage{
		Limits:     report.Limits{Memory: l.Memory, Swap: l.Swap, Pids: l.Pids},
		MemoryPeak: p.Memory,
		SwapPeak:   p.Swap,
		PidsPeak:   p.Pids,
		CPU:        report.Seconds(p.CPU),
		Counters:   counters(e),
	}
	if best.Memory > 0 {
		u.Split = split(best.Split, "sampled")
	}
	return u
}

func split(s cgroup.Split, source string) report.Split {
	return report.Split{Anon: s.Anon, Shmem: s.Shmem, File: s.File, Kernel: s.Kernel, Source: source}
}

// counters lists the event counters that are not zero, by kernel file and key.
func counters(e cgroup.Events) map[string]int64 {
	c := map[string]int64{}
	memory := func(file string, m cgroup.MemoryEvents) {
		c[file+":max"], c[file+":oom"] = m.Max, m.OOM
		c[file+":oom_kill"], c[file+":oom_group_kill"] = m.OOMKill, m.OOMGroupKill
	}
	memory("memory.events", e.Memory)
	memory("memory.events.local", e.MemoryLocal)
	c["memory.swap.events:max"], c["memory.swap.events:fail"] = e.Swap.Max, e.Swap.Fail
	c["pids.events:max"], c["pids.events.local:max"] = e.Pids.Max, e.PidsLocal.Max
	for k, n := range c {
		if n <= 0 {
			delete(c, k)
		}
	}
	return c
}
