package report

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// separator stands between the parts of an explanation.
const separator = " · "

// Explain says in one line, without the label, why w has its verdict, such as
//
//	its own memory.max 768 MiB · anon 741 MiB · in TestLoadModel · needs ≥ 768 MiB
//	its own pids.max 256 · fork refused 10,412 times
//
// Every number comes from the kernel's counters in w; a counter that is not known is
// left out. It is a pure function of w, and ignores w.Evidence.Why.
func Explain(w Worker) string {
	e := w.Evidence
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	switch w.Verdict {
	case Passed:
		add("exit status 0")
	case Failed:
		add(ending(w, "exit status not 0"))
		add(inTest(w))
	case Exited:
		add("it ended, and this kernel does not say how")
	case Signaled:
		add(cmp.Or(w.Signal, "a signal") + ", not sent by sandrun")
		add(inTest(w))
	case Memory:
		add(owned(w, "memory.max", w.Usage.Limits.Memory))
		add(split(w.Usage.Split))
		add(inTest(w))
		add(needs(w))
	case Swap:
		add(owned(w, "memory.swap.max", w.Usage.Limits.Swap) + ", then memory.max " + FormatBytes(w.Usage.Limits.Memory))
		add(split(w.Usage.Split))
		add(inTest(w))
		add(needs(w))
	case Pids:
		add(owned(w, "pids.max", w.Usage.Limits.Pids))
		add(refused(w))
		add(inTest(w))
	case Machine:
		add(machine(w))
		add(refused(w))
		add(biggest(e.Biggest))
		add(split(w.Usage.Split))
		add(inTest(w))
	case Host:
		add(host(w))
		add(split(w.Usage.Split))
		add(inTest(w))
	case Timeout:
		add("--timeout, still running after " + FormatDuration(time.Duration(w.Wall)))
		add(inTest(w))
	case Canceled:
		add("the run was over before it")
		add(inTest(w))
	case Error:
		add("sandrun could not do its job")
		add(ending(w, ""))
	default:
		add(string(w.Verdict))
	}
	if e.Leftover > 0 {
		add(plural(int64(e.Leftover), "process outlived it and was", "processes outlived it and were") + " killed")
	}
	return strings.Join(parts, separator)
}

// owned names a limit of the worker itself. The evidence's value wins over the caps
// that were written, which stand in where a verdict has no value of its own.
func owned(w Worker, file string, cap int64) string {
	if w.Evidence.Limit == file && w.Evidence.Value != 0 {
		cap = w.Evidence.Value
	}
	return "its own " + file + " " + formatLimit(file, cap)
}

// machine names the limit of the machine that was full.
func machine(w Worker) string {
	file := cmp.Or(w.Evidence.Limit, "memory.max")
	s := "the machine's " + file
	if w.Evidence.Value != 0 {
		s += " " + formatLimit(file, w.Evidence.Value)
	}
	if strings.HasPrefix(file, "pids.") {
		return s + " was reached"
	}
	return s + " was full"
}

// host names the limit above the run, when it is known whose it is.
func host(w Worker) string {
	e := w.Evidence
	s := "an out-of-memory killer above the run"
	if e.Limit == "" {
		return s + ", no cap of it"
	}
	s += ", " + e.Limit
	if e.Value != 0 {
		s += " " + formatLimit(e.Limit, e.Value)
	}
	if e.Cgroup != "" {
		s += " of " + e.Cgroup
	}
	return s
}

// formatLimit writes a value as its file counts: tasks in pids.max, bytes elsewhere.
func formatLimit(file string, v int64) string {
	if strings.HasPrefix(file, "pids.") {
		return FormatCount(v)
	}
	if v == 0 {
		return "0"
	}
	return FormatBytes(v)
}

func refused(w Worker) string {
	if w.Evidence.Refused <= 0 {
		return ""
	}
	return "fork refused " + plural(w.Evidence.Refused, "time", "times")
}

func needs(w Worker) string {
	if w.Evidence.Needs <= 0 {
		return ""
	}
	return "needs ≥ " + FormatBytes(w.Evidence.Needs)
}

func inTest(w Worker) string {
	if w.Test == "" {
		return ""
	}
	return "in " + w.Test
}

func ending(w Worker, unknown string) string {
	switch {
	case w.Signal != "":
		return w.Signal
	case w.Exit != nil:
		return "exit status " + FormatCount(int64(*w.Exit))
	}
	return unknown
}

// split names what the memory was: the largest part, and every other that is at least
// a tenth of the sum, largest first.
func split(s Split) string {
	type part struct {
		name  string
		bytes int64
	}
	parts := []part{{"anon", s.Anon}, {"shmem", s.Shmem}, {"file", s.File}, {"kernel", s.Kernel}}
	var sum int64
	for _, p := range parts {
		sum += max(p.bytes, 0)
	}
	if sum <= 0 {
		return ""
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.bytes, a.bytes) })
	var words []string
	for i, p := range parts {
		if i == 0 || p.bytes > 0 && p.bytes >= sum/10 {
			words = append(words, p.name+" "+FormatBytes(p.bytes))
		}
	}
	out := strings.Join(words, " + ")
	if s.Source == "sampled" { // a sample is older than the kill: say so
		out += " when last sampled"
	}
	return out
}

// biggest names at most three of the leaves that filled the machine.
func biggest(shares []Share) string {
	if len(shares) == 0 {
		return ""
	}
	const most = 3
	var words []string
	for _, s := range shares[:min(len(shares), most)] {
		words = append(words, cmp.Or(s.Label, s.ID)+" "+FormatBytes(s.Memory))
	}
	return "biggest: " + strings.Join(words, ", ")
}
