package cgroup

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// An OOMReport is what the kernel logged about one out-of-memory kill
// (mm/oom_kill.c). The kernel logs at most 10 full reports in 5 seconds; of the
// others only the Killed lines are left: Memcg, Pid and Split are then empty,
// and TaskMemcg too, unless the whole cgroup was killed.
type OOMReport struct {
	Time time.Duration // since boot
	// Global says that the whole machine was full, and no cgroup.
	Global bool
	// Memcg is the cgroup whose limit was met, TaskMemcg the victim's own: paths
	// from the root of the hierarchy, as Tree.Member takes them.
	Memcg, TaskMemcg string
	Task             string // the victim's comm
	Pid              int    // the victim's process, in the first pid namespace

	// Usage and Limit are of Memcg's memory, SwapUsage and SwapLimit of its swap,
	// at the kill; bytes, in steps of 1024.
	Usage, Limit, SwapUsage, SwapLimit int64
	// Split is Memcg's memory at the kill, with all below it, when HasSplit.
	Split    Split
	HasSplit bool
	Killed   []OOMKill
}

// An OOMKill is one process that the kernel killed for want of memory.
type OOMKill struct {
	Pid                        int
	Task                       string
	AnonRSS, FileRSS, ShmemRSS int64 // bytes
}

// oomParser makes reports of kernel log records. Records of other subsystems may
// stand between those of a report.
type oomParser struct {
	out    []OOMReport
	cur    OOMReport
	open   bool // a report has begun, its victim is not named yet
	inStat bool // the lines of memory.stat are coming
	stat   statSplit
	last   int // index in out of the report that Killed lines belong to, -1 for none
	// group says that all of a cgroup is being killed since groupAt: Killed lines
	// that follow closely belong to the same report.
	group   bool
	groupAt time.Duration
}

// groupSpan is how far apart the Killed lines of one cgroup are taken to be. A
// longer one is a kill whose own report the kernel has suppressed.
const groupSpan = 20 * time.Millisecond

func newOOMParser() *oomParser { return &oomParser{last: -1} }

// drain gives the finished reports.
func (p *oomParser) drain() []OOMReport {
	out := p.out
	p.out, p.last, p.group = nil, -1, false
	return out
}

// lose forgets a report that has begun: records of it were overwritten.
func (p *oomParser) lose() { p.open, p.inStat, p.last, p.group = false, false, -1, false }

// record takes one record of /dev/kmsg: "prio,seq,usec,flags;text", then
// " KEY=value" lines (Documentation/ABI/testing/dev-kmsg). Records that a process
// wrote to /dev/kmsg have another facility than the kernel's 0 and do not count.
func (p *oomParser) record(b []byte) {
	prefix, text, ok := strings.Cut(string(b), ";")
	if !ok {
		return
	}
	f := strings.SplitN(prefix, ",", 4)
	if len(f) < 4 {
		return
	}
	prio, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil || prio>>3 != 0 {
		return
	}
	usec, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || usec < 0 || usec > int64(1<<63-1)/1000 {
		return
	}
	text, _, _ = strings.Cut(text, "\n")
	p.line(time.Duration(usec)*time.Microsecond, text)
}

func (p *oomParser) line(at time.Duration, s string) {
	switch {
	case strings.Contains(s, " invoked oom-killer: "):
		p.cur, p.stat = OOMReport{Time: at}, statSplit{}
		p.open, p.inStat, p.last, p.group = true, false, -1, false
	case strings.HasPrefix(s, "oom-kill:constraint="):
		p.victim(at, s)
	case strings.Contains(s, ": Killed process "):
		p.killed(at, s)
	case strings.HasPrefix(s, "Tasks in "):
		memcg, ok := strings.CutSuffix(strings.TrimPrefix(s, "Tasks in "), " are going to be killed due to memory.oom.group set")
		if ok && p.last >= 0 {
			p.group, p.groupAt = true, at
			if r := &p.out[p.last]; r.TaskMemcg == "" {
				r.TaskMemcg = memcg
			}
		}
	case !p.open:
	case strings.HasPrefix(s, "memory: usage "):
		p.cur.Usage, p.cur.Limit = usageLine(s)
	case strings.HasPrefix(s, "swap: usage "):
		p.cur.SwapUsage, p.cur.SwapLimit = usageLine(s)
	case strings.HasPrefix(s, "Memory cgroup stats for "):
		p.inStat = true
		// Kernels before 6.10 print all of memory.stat as one record, its newlines escaped.
		if _, rest, ok := strings.Cut(s, `:`); ok && rest != "" {
			p.stats(rest)
		}
	case strings.HasPrefix(s, "Tasks state "):
		p.inStat = false
	case p.inStat:
		p.stats(s)
	}
}

// stats takes lines of memory.stat.
func (p *oomParser) stats(s string) {
	for line := range strings.SplitSeq(s, `\x0a`) {
		key, value, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		v, err := parseUint([]byte(value))
		if err != nil {
			continue // a record of somebody else
		}
		p.stat.set([]byte(key), v)
		p.cur.HasSplit = p.cur.HasSplit || key == "anon"
	}
}

// victim takes "oom-kill:constraint=C,nodemask=N,[cpuset=S,mems_allowed=M,]
// (global_oom|oom_memcg=PATH),task_memcg=PATH,task=COMM,pid=N,uid=N". A comm may
// hold anything but a newline: it is what is left between the others.
func (p *oomParser) victim(at time.Duration, s string) {
	if !p.open { // its beginning was lost
		p.cur, p.stat = OOMReport{Time: at}, statSplit{}
	}
	p.open, p.inStat = false, false
	head, tail, ok := strings.Cut(s, ",task_memcg=")
	if !ok {
		return
	}
	if _, memcg, ok := strings.Cut(head, ",oom_memcg="); ok {
		p.cur.Memcg = memcg
	} else {
		p.cur.Global = strings.HasSuffix(head, ",global_oom")
	}
	memcg, tail, ok := strings.Cut(tail, ",task=")
	if !ok {
		return
	}
	i := strings.LastIndex(tail, ",pid=")
	if i < 0 {
		return
	}
	pid, _, _ := strings.Cut(tail[i+len(",pid="):], ",")
	n, err := strconv.Atoi(pid)
	if err != nil || n < 0 {
		return
	}
	p.cur.TaskMemcg, p.cur.Task, p.cur.Pid = memcg, tail[:i], n
	if p.cur.HasSplit {
		p.cur.Split = p.stat.split()
	}
	p.last, p.group = len(p.out), false
	p.out = append(p.out, p.cur)
}

// killed takes "Memory cgroup out of memory: Killed process N (COMM)
// total-vm:NkB, anon-rss:NkB, file-rss:NkB, shmem-rss:NkB, UID:N ...". The
// victim is named again when its whole cgroup is killed.
func (p *oomParser) killed(at time.Duration, s string) {
	how, rest, _ := strings.Cut(s, ": Killed process ")
	num, rest, ok := strings.Cut(rest, " (")
	i := strings.LastIndex(rest, ") total-vm:")
	pid, err := strconv.Atoi(num)
	if !ok || i < 0 || err != nil || pid < 0 {
		return
	}
	k := OOMKill{Pid: pid, Task: rest[:i]}
	for field := range strings.SplitSeq(rest[i+2:], ", ") {
		name, value, _ := strings.Cut(field, ":")
		v := kilobytes(value)
		switch name {
		case "anon-rss":
			k.AnonRSS = v
		case "file-rss":
			k.FileRSS = v
		case "shmem-rss":
			k.ShmemRSS = v
		}
	}
	if p.last >= 0 {
		r := &p.out[p.last]
		if slices.ContainsFunc(r.Killed, func(old OOMKill) bool { return old.Pid == k.Pid }) {
			return
		}
		if len(r.Killed) == 0 || p.group && at-p.groupAt <= groupSpan {
			r.Killed = append(r.Killed, k)
			return
		}
	}
	// The kernel suppressed the report, or it was drained before.
	p.last, p.group = len(p.out), false
	p.out = append(p.out, OOMReport{Time: at, Global: how == "Out of memory", Killed: []OOMKill{k}})
}

// usageLine reads "memory: usage NkB, limit NkB, failcnt N".
func usageLine(s string) (usage, limit int64) {
	_, rest, _ := strings.Cut(s, "usage ")
	u, rest, _ := strings.Cut(rest, ", limit ")
	l, _, _ := strings.Cut(rest, ",")
	return kilobytes(u), kilobytes(l)
}

// kilobytes reads "NkB" as bytes; what it cannot read is 0.
func kilobytes(s string) int64 {
	digits, ok := strings.CutSuffix(s, "kB")
	if !ok {
		return 0
	}
	v, err := parseUint([]byte(digits))
	if err != nil || v > unlimited>>10 {
		return 0
	}
	return v << 10
}
