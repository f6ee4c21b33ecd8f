package supervisor

import (
	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/report"
)

// samples are what a cgroup was seen to use. The kernel keeps peaks, but not how a
// peak was made up.
type samples struct {
	best cgroup.Usage // the one with the most memory
	last int64        // memory.current, bytes
}

// take reads the memory in use, and how it is made up when it is more than before by
// a 64th: memory.stat costs more than all the rest.
func (s *samples) take(of interface {
	Memory() (int64, error)
	Usage() (cgroup.Usage, error)
},
) {
	now, err := of.Memory()
	if err != nil {
		return // the cgroup is going away
	}
	s.last = now
	if now <= s.best.Memory+s.best.Memory/64 {
		return
	}
	if u, err := of.Usage(); err == nil && u.Memory > s.best.Memory {
		s.best = u
	}
}

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
