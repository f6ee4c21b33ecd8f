// Package report holds the immutable record of a run and its renderers.
//
// A run is recorded once, by the supervisor, and only read afterwards: the text
// summary and the JSON file render the same Run and never change it.
package report

import "time"

// Schema is the version of the JSON form of a Run. It grows by one when a field
// changes its meaning or goes away; new fields do not change it.
const Schema = 1

// A Verdict says how a worker ended and, when a cap ended it, which one.
type Verdict string

// The verdicts. The counters that each rests on are in the worker's Evidence.
const (
	Passed   Verdict = "passed"   // exit status 0
	Failed   Verdict = "failed"   // exit status n, no cap involved
	Signaled Verdict = "signaled" // killed by a signal that sandrun did not send
	Memory   Verdict = "memory"   // its own memory.max
	Swap     Verdict = "swap"     // its own memory.swap.max refused pages, then its memory.max
	Pids     Verdict = "pids"     // its own pids.max refused a fork, and it did not pass
	Machine  Verdict = "machine"  // the profile's machine was full
	Host     Verdict = "host"     // an out-of-memory killer above sandrun, no cap of ours
	Timeout  Verdict = "timeout"  // --timeout
	Canceled Verdict = "canceled" // the run was interrupted, or its command ended first
	Error    Verdict = "error"    // sandrun could not do its job
	Exited   Verdict = "exited"   // it ended, and this kernel (before 6.15) does not say how
)

// Killed reports whether a cap of the run, or the lack of memory above it, ended the worker.
func (v Verdict) Killed() bool {
	switch v {
	case Memory, Swap, Pids, Machine, Host, Timeout:
		return true
	}
	return false
}

// A Run is the finished record of one `sandrun exec`.
type Run struct {
	Schema  int       `json:"schema"`
	ID      string    `json:"id"`
	Version string    `json:"version"` // of sandrun
	Command []string  `json:"command"`
	Dir     string    `json:"dir"`
	Start   time.Time `json:"start"`
	Wall    Seconds   `json:"wall_seconds"`
	Kernel  Kernel    `json:"kernel"`
	Profile Profile   `json:"profile"`
	Machine Usage     `json:"machine"` // the machine cgroup: caps, peaks and counters of the whole run
	Main    Usage     `json:"main"`    // the command itself and what it built
	Workers []Worker  `json:"workers"`
	// CommandExit is the command's own status, 128+n when signal n ended it.
	CommandExit int `json:"command_exit"`
	// Exit is sandrun's status: the command's own, or 1 when that was 0 and a cap killed a worker.
	Exit  int      `json:"exit"`
	Notes []string `json:"notes,omitempty"` // what a reader of the verdicts should know, a sentence each
}

// Kernel says where the leaves of a run were made.
type Kernel struct {
	Where      string `json:"where"`      // "host" or "guest"
	Release    string `json:"release"`    // uname -r
	Delegation string `json:"delegation"` // how the subtree was had: nested, systemd-user, systemd-system, root
}

// Profile is the machine a run was held to; bytes and tasks.
type Profile struct {
	Name         string  `json:"name"`
	VCPUs        float64 `json:"vcpus"`
	Memory       int64   `json:"memory"` // what the machine's operating system shows
	Budget       int64   `json:"budget"` // memory less headroom: memory.max of the run
	Swap         int64   `json:"swap"`
	Pids         int64   `json:"pids"`
	Workers      int     `json:"workers"`
	WorkerLimits Limits  `json:"worker_limits"`
}

// Limits are the hard caps that were written and read back; bytes and tasks.
type Limits struct {
	Memory int64 `json:"memory_max"`
	Swap   int64 `json:"memory_swap_max"`
	Pids   int64 `json:"pids_max"`
}

// Split is how memory was used; bytes, from memory.stat.
type Split struct {
	Anon   int64 `json:"anon"`
	Shmem  int64 `json:"shmem"` // tmpfs, /dev/shm, memfd; part of File in memory.stat, not here
	File   int64 `json:"file"`  // page cache without Shmem
	Kernel int64 `json:"kernel"`
	// Source is "kernel log" (the kernel's own figures at the moment of the kill),
	// "sampled" (the largest sample taken while it ran) or "" (it ended before a sample).
	Source string `json:"source,omitempty"`
}

// Usage is what a cgroup used. A peak of -1 means that the kernel has no such file.
type Usage struct {
	Limits     Limits  `json:"limits"`
	MemoryPeak int64   `json:"memory_peak"` // memory.peak, page cache included, clipped at memory.max
	Split      Split   `json:"memory_split"`
	SwapPeak   int64   `json:"swap_peak"`
	PidsPeak   int64   `json:"pids_peak"`
	CPU        Seconds `json:"cpu_seconds"`
	// Counters are the kernel's event counters that are not zero, by file and key,
	// such as "memory.events.local:oom".
	Counters map[string]int64 `json:"counters,omitempty"`
}

// A Worker is one process that was admitted, and everything it started.
type Worker struct {
	ID      string   `json:"id"`    // its leaf: worker-0001
	Label   string   `json:"label"` // import path, test file, or the command's name
	Adapter string   `json:"adapter"`
	Argv    []string `json:"argv"`
	Pid     int      `json:"pid"`
	Verdict Verdict  `json:"verdict"`
	// Exit is the exit status when it exited, Signal the signal's name when one ended it.
	Exit     *int      `json:"exit,omitempty"`
	Signal   string    `json:"signal,omitempty"`
	Test     string    `json:"test,omitempty"` // the test that was running when it died, when known
	Evidence Evidence  `json:"evidence"`
	Usage    Usage     `json:"usage"`
	Start    time.Time `json:"start"` // when it was admitted
	Wall     Seconds   `json:"wall_seconds"`
	Waited   Seconds   `json:"waited_seconds"` // for admission
}

// Evidence is what a verdict rests on.
type Evidence struct {
	// Why is the verdict in words, one sentence without the label.
	Why string `json:"why"`
	// Limit is the file that fired ("memory.max"), Cgroup whose it is (the leaf's
	// name, "machine", or a path above the run), Value what it held; bytes or tasks.
	Limit  string `json:"limit,omitempty"`
	Cgroup string `json:"cgroup,omitempty"`
	Value  int64  `json:"value,omitempty"`
	// Refused counts forks that pids.max refused.
	Refused int64 `json:"forks_refused,omitempty"`
	// Needs is the least that it is known to need, bytes: the cap, after a kill.
	Needs int64 `json:"needs_at_least,omitempty"`
	// Biggest are the largest leaves of the machine at the kill, largest first.
	Biggest []Share `json:"biggest,omitempty"`
	// Leftover counts processes that outlived the worker and were killed with its leaf.
	Leftover int `json:"leftover,omitempty"`
}

// A Share is one leaf's part of a full machine.
type Share struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Memory int64  `json:"memory"` // bytes
}

// Seconds is a duration that JSON writes as a number of seconds.
type Seconds time.Duration
