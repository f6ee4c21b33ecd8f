// Package profiles holds the machines that tests are run on: how much memory,
// swap, processors and tasks each has, what else runs there, how many workers
// fit and what each of them may take.
//
// A catalogue of public machines is built in, with the page that each figure
// comes from. Own profiles stand in a sandrun.yaml, and may extend another.
// Resolve turns a profile, the overrides of the command line and the facts of
// this machine into a Machine, in which every number is final.
//
// Sizes are bytes throughout, processors are whole or fractional CPUs, and pids
// are tasks (threads count).
package profiles

// A Profile is a machine: vCPUs, memory, swap, pids, and what a worker on it may take.
type Profile struct {
	Name   string
	Family string // the file of the catalogue it stands in; "" for an own profile
	Title  string // what it is, in a few words
	File   string // the sandrun.yaml that defines it; "" for the catalogue
	Line   int    // the line in File
	// Extends is the profile that it was made from, "" for none.
	Extends string

	VCPUs   float64
	Nominal int64 // what the vendor sells
	Memory  int64 // what the operating system shows: MemTotal, or the limit of the container
	Swap    int64
	Pids    int64 // pids.max of the whole run; 0 is "by the rule" (MachinePids)

	// Basis says how Memory is known, Source where the figures come from.
	Basis  Basis
	Source Source

	// Headroom is what else runs on the machine. Memory less its sum is the budget.
	Headroom []Headroom
	// Main is what the workers leave to the command itself: compilers and linkers,
	// pytest's controller. See MainReserve for the rule when a profile states none.
	Main    int64
	Workers Workers
	// Worker is what a worker may take. Memory 0 is "an equal share of what Main
	// leaves", Swap -1 "an equal share of the swap", Pids 0 "by the rule" (WorkerPids).
	Worker Caps
	// Expect is what runs with so many workers were seen to take, where known.
	Expect []Expectation
}

// Budget is memory.max of the run: what the operating system shows, less the headroom.
func (p *Profile) Budget() int64 {
	b := p.Memory
	for _, h := range p.Headroom {
		b -= h.Bytes
	}
	return b
}

// A Basis says how the memory that a machine shows is known.
type Basis struct {
	// Kind is "measured" (a figure that was read on such a machine), "derived" (by
	// the rule that Note states) or "limit" (a container: the limit is what is sold).
	Kind string
	Note string
	URL  string // where the measurement is published, or the rule's source
}

// A Source is where the figures of a profile were published.
type Source struct {
	URL  string
	Date string // when it was consulted, YYYY-MM-DD
	Note string
}

// Headroom is one named part of a machine that is not for tests.
type Headroom struct {
	Name  string
	Bytes int64
}

// Workers says how many workers a profile recommends.
type Workers struct {
	// Auto is "as many as fit", see AutoWorkers.
	Auto bool
	// Count is the recommended number, UpTo the number that may still be worth it
	// (0: none), Light the number for suites with light workers (0: none).
	Count, UpTo, Light int
}

// Caps are the hard limits of one worker's cgroup.
type Caps struct {
	Memory int64 // memory.max, bytes
	Swap   int64 // memory.swap.max, bytes; 0 is no swap
	Pids   int64 // pids.max, tasks
}

// An Expectation is what the machine was seen to hold with so many workers.
type Expectation struct {
	Workers  int
	From, To int64 // bytes
}

// Host is this machine, as its kernel shows it.
type Host struct {
	CPUs   int   // processors that this process may run on
	Memory int64 // MemTotal, bytes
	Swap   int64 // SwapTotal, bytes
	// Limit is the memory limit of the cgroup that this process is in, SwapLimit its
	// swap limit; 0 where there is none.
	Limit     int64
	SwapLimit int64 // -1 where no swap is allowed
	// CPULimit is the CPU limit of that cgroup (cpu.max, as a number of CPUs); 0 for none.
	CPULimit float64
}
