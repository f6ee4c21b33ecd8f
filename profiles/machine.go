package profiles

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Overrides are the flags that change a profile; "" leaves a figure as it is.
//
// What is given is taken as it is, and what depends on it is computed anew:
//
//   - Memory is memory.max of the run, all of it: a headroom is not taken off again,
//     for who names a figure has decided what the run may have.
//   - CPUs changes what main keeps (MainReserve), the tasks of a worker (WorkerPids)
//     and how many workers "auto" finds.
//   - Workers alone: the memory left by main is shared equally. A cap that the
//     profile states itself stays as long as that many workers fit, and is the
//     share when they do not.
//   - WorkerMemory alone: the workers are the profile's, or as many of them as fit.
//   - Workers and WorkerMemory: both are taken, or it is an error that they do not fit.
//     The same holds for the swap and the tasks of a worker.
//   - Memory alone: as many of the profile's workers as fit when it states their cap,
//     otherwise the same number with smaller or larger shares.
type Overrides struct {
	Memory       string // --memory: memory.max of the run; a size, or a percentage of the profile's memory
	Swap         string // --swap: a size, or a percentage of the profile's swap
	Pids         string // --pids: tasks
	CPUs         string // --cpus: whole or fractional
	Workers      string // -n, --workers: a number or "auto"
	WorkerMemory string // --worker-memory: a size, or a percentage of the budget
	WorkerSwap   string // --worker-swap: a size, or a percentage of the machine's swap
	WorkerPids   string // --worker-pids: tasks
}

// A Machine is what a run is held to; every number is final, and a multiple of
// 64 KiB where it is memory, so that the kernel reads back what was written.
//
// Workers × Worker.Memory + Main is Budget: when every worker is at its cap, the
// command still has Main.
type Machine struct {
	Name    string
	VCPUs   float64 // as the profile says; CPUMax is what is written
	Memory  int64   // what the machine's operating system shows
	Budget  int64   // machine/ memory.max
	Swap    int64   // machine/ memory.swap.max
	Pids    int64   // machine/ pids.max
	Workers int     // at most so many at once
	Worker  Caps    // each worker's leaf
	Main    int64   // what is left to the command when all workers are at their caps
	// Notes are what a user should know, a sentence each: a machine that is larger
	// than this host, a command left with little.
	Notes []string

	// Profile is what the machine was made from.
	Profile *Profile

	why reasons
}

// reasons say where each number of a Machine comes from, for 'sandrun profiles NAME'.
type reasons struct {
	budget, swap, pids, cpus             string
	workers, main                        string
	workerMemory, workerSwap, workerPids string
	headroom                             []Headroom // that was taken off, none with --memory
	mainWish                             int64
	memoryGiven                          bool
}

// CPUMax is machine/ cpu.max: a quota in a period, both in microseconds.
func (m *Machine) CPUMax() (quota, period int64) {
	return max(int64(math.Round(m.VCPUs*cpuPeriod)), 1000), cpuPeriod
}

// Summary is the machine in a line: "t3.small · 2 vCPU · 1.9 GiB · swap 0".
func (m *Machine) Summary() string {
	return fmt.Sprintf("%s · %s vCPU · %s · swap %s", m.Name, formatCPUs(m.VCPUs), FormatSize(m.Memory), formatSwap(m.Swap))
}

func formatCPUs(n float64) string {
	return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64)
}

func formatSwap(n int64) string {
	if n == 0 {
		return "0"
	}
	return FormatSize(n)
}

// flagError says which flag is wrong.
func flagError(flag string, err error) error { return fmt.Errorf("--%s: %w", flag, err) }

// Resolve makes a Machine from the profile called name, the overrides and the
// facts of this machine.
func (s *Set) Resolve(name string, o Overrides, h Host) (Machine, error) {
	p, err := s.Profile(name, h)
	if err != nil {
		return Machine{}, err
	}
	return p.Resolve(o, h)
}

// Resolve makes a Machine from p, the overrides and the facts of this machine.
func (p *Profile) Resolve(o Overrides, h Host) (Machine, error) {
	m := Machine{Name: p.Name, Profile: p}
	for _, step := range []func(*Profile, Overrides) error{m.resolveRun, m.resolveMemory, m.resolveSwap, m.resolvePids} {
		if err := step(p, o); err != nil {
			return Machine{}, fmt.Errorf("profile %s: %w", p.Name, err)
		}
	}
	m.note(h)
	return m, nil
}

// resolveRun settles the caps of the run as a whole, without its workers.
func (m *Machine) resolveRun(p *Profile, o Overrides) error {
	m.Memory, m.why.headroom = p.Memory, p.Headroom
	m.Budget = alignDown(p.Budget())
	m.why.budget = budgetReason(p)
	if o.Memory != "" {
		n, err := flagSize("memory", o.Memory, p.Memory, false)
		if err != nil {
			return err
		}
		if n < leastBudget {
			return flagError("memory", fmt.Errorf("%s is less than a run needs, %s", FormatSize(n), FormatSize(leastBudget)))
		}
		m.Budget = alignDown(n)
		m.Memory, m.why.headroom, m.why.memoryGiven = m.Budget, nil, true
		m.why.budget = "--memory " + o.Memory
		if o.Memory[len(o.Memory)-1] == '%' {
			m.why.budget += " of the profile's " + FormatSize(p.Memory)
		}
	}

	m.VCPUs, m.why.cpus = p.VCPUs, formatCPUs(p.VCPUs)+" vCPU"
	if o.CPUs != "" {
		n, err := parseCPUs(o.CPUs)
		if err != nil {
			return flagError("cpus", err)
		}
		m.VCPUs, m.why.cpus = n, "--cpus "+o.CPUs
	}
	m.why.cpus += ", in µs of each 100 ms"

	m.Swap, m.why.swap = alignDown(p.Swap), "the profile's swap"
	if p.Swap == 0 {
		m.why.swap = "the machine has no swap"
	}
	if o.Swap != "" {
		n, err := flagSize("swap", o.Swap, p.Swap, true)
		if err != nil {
			return err
		}
		m.Swap, m.why.swap = alignDown(n), "--swap "+o.Swap
	}

	m.Pids, m.why.pids = p.pids(m.Memory), "stated by the profile"
	if p.Pids == 0 {
		m.why.pids = "systemd's default, 15 % of threads-max, which is one for each 128 KiB of memory"
	}
	if o.Pids != "" {
		n, err := parseCount(o.Pids, 2*leastMainPids, maxPids)
		if err != nil {
			return flagError("pids", err)
		}
		m.Pids, m.why.pids = n, "--pids "+o.Pids
	}
	return nil
}

// flagSize reads the size that a flag gives.
func flagSize(flag, s string, of int64, zero bool) (int64, error) {
	n, err := sizeOf(&value{text: s}, of, zero)
	if err != nil {
		var fe *FileError
		if errors.As(err, &fe) {
			err = fe.Err
		}
		return 0, flagError(flag, err)
	}
	return n, nil
}

// resolveMemory settles how many workers there are and what each may take.
func (m *Machine) resolveMemory(p *Profile, o Overrides) error {
	m.why.mainWish = p.main(m.Budget, m.VCPUs)
	pool := m.Budget - m.why.mainWish

	count, auto := p.Workers.Count, p.Workers.Auto
	switch {
	case o.Workers == "auto":
		auto = true
	case o.Workers != "":
		n, err := parseCount(o.Workers, 1, maxWorkers)
		if err != nil {
			return flagError("workers", fmt.Errorf("%w, or auto", err))
		}
		count, auto = int(n), false
	}
	var err error
	switch {
	case o.WorkerMemory != "":
		err = m.givenCap(pool, count, auto, o)
	default:
		err = m.derivedCap(p, pool, count, auto, o)
	}
	if err != nil {
		return err
	}
	m.Main = m.Budget - int64(m.Workers)*m.Worker.Memory
	switch {
	case m.Main < m.why.mainWish:
		m.why.main = "what the caps that were given leave to the command"
		m.Notes = append(m.Notes, fmt.Sprintf(
			"the command itself is left with %s when every worker is at its cap; %s is what the rule keeps for building beside them",
			FormatSize(m.Main), FormatSize(m.why.mainWish)))
	case p.Main > 0:
		m.why.main = "at least what the profile states, " + FormatSize(m.why.mainWish)
	default:
		m.why.main = fmt.Sprintf("at least %s: a linker, and a compiler for each CPU, at most half", FormatSize(m.why.mainWish))
	}
	return nil
}

// givenCap settles the workers when --worker-memory says what each may take.
func (m *Machine) givenCap(pool int64, count int, auto bool, o Overrides) error {
	n, err := flagSize("worker-memory", o.WorkerMemory, m.Budget, false)
	if err != nil {
		return err
	}
	limit := max(alignDown(n), align)
	least := min(leastMain, m.Budget/8)
	if limit > m.Budget-least {
		return flagError("worker-memory", fmt.Errorf(
			"one worker of %s does not fit the %s of the run (%s; %s are the command's at least): lower --worker-memory, raise --memory, or name a larger --profile",
			FormatSize(n), FormatSize(m.Budget), m.why.budget, FormatSize(least)))
	}
	m.Worker.Memory, m.why.workerMemory = limit, "--worker-memory "+o.WorkerMemory
	if o.Workers != "" && !auto {
		if limit > (m.Budget-least)/int64(count) {
			return flagError("workers", fmt.Errorf(
				"%d workers of %s do not fit the %s of the run (%s; %s are the command's at least): lower --workers or --worker-memory, raise --memory, or name a larger --profile",
				count, FormatSize(n), FormatSize(m.Budget), m.why.budget, FormatSize(least)))
		}
		m.Workers, m.why.workers = count, "--workers "+o.Workers
		return nil
	}
	if auto {
		m.Workers = AutoWorkers(pool, limit, m.VCPUs)
		m.why.workers = "auto: as many as fit, at most one for each CPU"
		return nil
	}
	m.Workers = int(min(max(pool/limit, 1), int64(count)))
	m.why.workers = "the profile's recommendation"
	if m.Workers < count {
		m.why.workers = fmt.Sprintf("as many of the profile's %d as fit", count)
	}
	return nil
}

// derivedCap settles what each worker may take when no flag says it.
func (m *Machine) derivedCap(p *Profile, pool int64, count int, auto bool, o Overrides) error {
	stated := alignDown(p.Worker.Memory)
	switch {
	case auto:
		unit := AutoWorker
		if p.Worker.Memory > 0 {
			unit = p.Worker.Memory
		}
		m.Workers = AutoWorkers(pool, unit, m.VCPUs)
		m.why.workers = fmt.Sprintf("auto: as many of %s as fit, at most one for each CPU", formatStated(unit))
	case o.Workers != "":
		m.Workers, m.why.workers = count, "--workers "+o.Workers
	case stated > 0:
		m.Workers, m.why.workers = int(min(max(pool/stated, 1), int64(count))), "the profile's recommendation"
		if m.Workers < count {
			m.why.workers = fmt.Sprintf("as many of the profile's %d as fit", count)
		}
	default:
		m.Workers, m.why.workers = count, "the profile's recommendation"
	}
	each := pool / int64(m.Workers)
	if stated > 0 && stated <= each {
		m.Worker.Memory, m.why.workerMemory = stated, "stated by the profile"
		return nil
	}
	m.Worker.Memory = roundShare(each)
	if m.Worker.Memory < leastWorker {
		return flagError("workers", fmt.Errorf(
			"%d workers would share %s, %s each, and a worker needs %s at least: lower --workers, raise --memory, or name a larger --profile",
			m.Workers, FormatSize(pool), FormatSize(each), FormatSize(leastWorker)))
	}
	m.why.workerMemory = fmt.Sprintf("an equal share of %s (%s less main's %s), rounded down",
		FormatSize(pool), FormatSize(m.Budget), FormatSize(m.why.mainWish))
	if stated > 0 {
		m.why.workerMemory += fmt.Sprintf("; the profile's %s do not fit %d times", formatStated(p.Worker.Memory), m.Workers)
	}
	return nil
}

func (m *Machine) resolveSwap(p *Profile, o Overrides) error {
	share := alignDown(m.Swap / int64(m.Workers))
	if o.WorkerSwap != "" {
		n, err := flagSize("worker-swap", o.WorkerSwap, m.Swap, true)
		if err != nil {
			return err
		}
		if n > m.Swap/int64(m.Workers) {
			return flagError("worker-swap", fmt.Errorf("%d × %s do not fit the %s of swap of the run: lower --worker-swap or --workers, or raise --swap",
				m.Workers, FormatSize(n), formatSwap(m.Swap)))
		}
		m.Worker.Swap, m.why.workerSwap = alignDown(n), "--worker-swap "+o.WorkerSwap
		return nil
	}
	switch stated := alignDown(p.Worker.Swap); {
	case m.Swap == 0:
		m.Worker.Swap, m.why.workerSwap = 0, "the run has no swap"
	case p.Worker.Swap >= 0 && stated <= share:
		m.Worker.Swap, m.why.workerSwap = stated, "stated by the profile"
	default:
		m.Worker.Swap, m.why.workerSwap = share, "an equal share of "+FormatSize(m.Swap)
	}
	return nil
}

func (m *Machine) resolvePids(p *Profile, o Overrides) error {
	workers := int64(m.Workers)
	if o.WorkerPids != "" {
		n, err := parseCount(o.WorkerPids, 1, maxPids)
		if err != nil {
			return flagError("worker-pids", err)
		}
		if n > (m.Pids-leastMainPids)/workers {
			return flagError("worker-pids", fmt.Errorf("%d × %d tasks do not fit the %d of the run, %d of which are the command's: lower --worker-pids or --workers, or raise --pids",
				m.Workers, n, m.Pids, leastMainPids))
		}
		m.Worker.Pids, m.why.workerPids = n, "--worker-pids "+o.WorkerPids
		return nil
	}
	wish := p.Worker.Pids
	m.why.workerPids = "stated by the profile"
	if wish == 0 {
		wish, m.why.workerPids = WorkerPids(m.VCPUs), "128 for each CPU, at least 256 and at most 1024"
	}
	// A quarter of the tasks is the command's, so that a fork bomb meets its own cap
	// and not the machine's.
	if share := (m.Pids - m.Pids/4) / workers; share < wish {
		wish, m.why.workerPids = share, fmt.Sprintf("an equal share of three quarters of the run's %d", m.Pids)
	}
	if wish < 1 {
		return flagError("workers", fmt.Errorf("%d workers do not fit the %d tasks of the run: lower --workers or raise --pids", m.Workers, m.Pids))
	}
	m.Worker.Pids = wish
	return nil
}

// note says where this host has less than the machine.
func (m *Machine) note(h Host) {
	memory := h.Memory
	if h.Limit > 0 {
		memory = min(memory, h.Limit)
	}
	if memory > 0 && m.Budget > memory {
		m.Notes = append(m.Notes, fmt.Sprintf("this host has %s of memory, less than the %s of the run: the host may be full before a cap is met",
			FormatSize(memory), FormatSize(m.Budget)))
	}
	if h.Memory > 0 && m.Swap > h.Swap {
		m.Notes = append(m.Notes, fmt.Sprintf("this host has %s of swap, less than the %s of the run", formatSwap(max(h.Swap, 0)), FormatSize(m.Swap)))
	}
	if h.CPUs > 0 && m.VCPUs > float64(h.CPUs) {
		m.Notes = append(m.Notes, fmt.Sprintf("this host has %d CPUs, less than the %s of the machine: runs take longer than on the real one",
			h.CPUs, formatCPUs(m.VCPUs)))
	}
}

// budgetReason is the sum that the budget is: "1.9 GiB less operating system 192 MiB".
func budgetReason(p *Profile) string {
	s := FormatSize(p.Memory)
	for i, h := range p.Headroom {
		if i == 0 {
			s += " less "
		} else {
			s += ", "
		}
		s += h.Name + " " + FormatSize(h.Bytes)
	}
	return s
}
