package profiles

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// hostName is the profile that is made from the facts of this machine.
const hostName = "host"

// hostProfile is this machine with headroom.
func hostProfile(h Host) (*Profile, error) {
	if h.Memory <= 0 || h.CPUs <= 0 {
		return nil, errors.New("the profile host needs the facts of this machine (/proc/meminfo), and they are not known; name another with --profile")
	}
	p := &Profile{
		Name: hostName, Family: hostName, Title: "this machine, with headroom",
		VCPUs: float64(h.CPUs), Nominal: h.Memory, Memory: h.Memory, Swap: max(h.Swap, 0),
		Basis:   Basis{Kind: "measured", Note: "MemTotal of /proc/meminfo on this machine"},
		Source:  Source{Note: "/proc/meminfo and the processors that this process may use"},
		Workers: Workers{Auto: true},
	}
	if h.CPULimit > 0 && h.CPULimit < p.VCPUs {
		p.VCPUs = max(h.CPULimit, leastCPUs)
	}
	if h.Limit > 0 && h.Limit < h.Memory {
		p.Memory = h.Limit
		p.Basis = Basis{Kind: "limit", Note: "memory.max of the cgroup that sandrun runs in; MemTotal is larger"}
	}
	switch {
	case h.SwapLimit < 0:
		p.Swap = 0
	case h.SwapLimit > 0:
		p.Swap = min(p.Swap, h.SwapLimit)
	}
	if p.Memory < 2*leastBudget {
		return nil, fmt.Errorf("this machine shows %s of memory, too little for a worker", FormatSize(p.Memory))
	}
	p.Headroom = []Headroom{{Name: "the rest of this machine", Bytes: HostHeadroom(p.Memory)}}
	// A worker that swaps slows the whole machine down, so it gets none unasked.
	p.Worker.Swap = 0
	return p, nil
}

// build makes the profile that s describes from base, the one it extends (nil: none).
func (s *spec) build(base *Profile) (*Profile, error) {
	p := &Profile{Worker: Caps{Swap: -1}}
	if base != nil {
		c := *base
		p = &c
		p.Extends = base.Name
	}
	p.Name, p.Family = s.name, s.family
	if s.own {
		p.File, p.Line = s.at.file, s.at.line
	}
	for _, step := range []func(*Profile, *Profile) error{
		s.buildMemory, s.buildHeadroom, s.buildMachine, s.buildWorkers, s.buildExpect, s.buildSource,
	} {
		if err := step(p, base); err != nil {
			return nil, err
		}
	}
	if s.title != nil {
		p.Title = s.title.text
	} else if base == nil || s.own {
		p.Title = ""
	}
	return p, s.check(p)
}

// sizeOf reads a size that may not be 0, or may where zero is true.
func sizeOf(v *value, of int64, zero bool) (int64, error) {
	n, err := ParseSize(v.text, of)
	if err != nil {
		return 0, v.wrap(err)
	}
	if zero && n == 0 {
		return 0, nil
	}
	if n < leastSize {
		return 0, v.errorf("%q is %d bytes, less than the least, 1 MiB; did you leave out the unit? %s", v.text, n, sizeForms)
	}
	return n, nil
}

// countOf reads a whole number from lo to hi.
func countOf(v *value, lo, hi int64) (int64, error) {
	n, err := parseCount(v.text, lo, hi)
	return n, v.wrap(err)
}

func parseCount(s string, lo, hi int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && (n < lo || n > hi) {
		return 0, fmt.Errorf("%s is out of range; give a whole number from %d to %d", s, lo, hi)
	}
	if err != nil || s[0] == '+' {
		return 0, fmt.Errorf("%q is no whole number; give one from %d to %d", s, lo, hi)
	}
	return n, nil
}

// parseCPUs reads a number of processors, rounded to what cpu.max can hold.
func parseCPUs(s string) (float64, error) {
	const form = "give a number of CPUs such as 2 or 0.5"
	for _, c := range s {
		if (c < '0' || c > '9') && c != '.' && c != '-' {
			return 0, fmt.Errorf("%q is no number; %s", s, form)
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%q is no number; %s", s, form)
	}
	if err != nil || n < leastCPUs || n > maxCPUs {
		return 0, fmt.Errorf("%s CPUs is out of range, %g to %d; %s", s, leastCPUs, maxCPUs, form)
	}
	return math.Round(n*cpuPeriod) / cpuPeriod, nil
}

func (s *spec) buildMemory(p, base *Profile) error {
	var err error
	if s.nominal != nil {
		if p.Nominal, err = sizeOf(s.nominal, 0, false); err != nil {
			return err
		}
	}
	switch {
	case s.memory != nil:
		of := int64(0)
		if s.nominal != nil {
			of = p.Nominal
		} else if base != nil {
			of = base.Memory
		}
		if p.Memory, err = sizeOf(s.memory, of, false); err != nil {
			return err
		}
		if s.nominal == nil {
			p.Nominal = p.Memory
		}
		p.Basis = Basis{Kind: "stated", Note: fmt.Sprintf("%s:%d", s.memory.file, s.memory.line)}
		if d := s.fileDefaults; d != nil && d.basisAt != nil {
			p.Basis = d.basisOf()
		}
	case s.nominal != nil:
		p.Memory = DerivedMemory(p.Nominal)
		p.Basis = Basis{Kind: "derived", Note: "what is sold less 1/32 and 64 MiB"}
	case base == nil:
		return s.at.errorf("it has no memory; give memory (what the system shows), or nominal (what is sold), or extend another profile")
	}
	if s.basisAt != nil {
		p.Basis = s.basisOf()
		switch p.Basis.Kind {
		case "measured", "derived", "limit", "stated":
		default:
			at := s.basisKind
			if at == nil {
				at = s.basisAt
			}
			return at.errorf("the kind of a basis is measured, derived, limit or stated, not %q", p.Basis.Kind)
		}
	}
	if p.Memory > p.Nominal {
		at := s.memory
		if at == nil {
			at = &s.at
		}
		return at.errorf("the memory shown, %s, is more than the nominal %s", FormatSize(p.Memory), FormatSize(p.Nominal))
	}
	return nil
}

func (s *spec) basisOf() Basis {
	return Basis{Kind: s.basisKind.or(""), Note: s.basisNote.or(""), URL: s.basisURL.or("")}
}

// or is the text of v, or other when there is none.
func (v *value) or(other string) string {
	if v == nil {
		return other
	}
	return v.text
}

func (s *spec) buildHeadroom(p, _ *Profile) error {
	if s.headroomAt != nil {
		p.Headroom = nil
		for i := range s.headroom {
			v := &s.headroom[i]
			n, err := sizeOf(v, p.Memory, true)
			if err != nil {
				return err
			}
			name := v.key[len(s.headroomAt.key)+1:]
			p.Headroom = append(p.Headroom, Headroom{Name: name, Bytes: n})
		}
	}
	left := p.Memory
	for _, h := range p.Headroom {
		if left -= h.Bytes; left < leastBudget {
			break
		}
	}
	if left < leastBudget {
		at := s.headroomAt
		if at == nil {
			at = &s.at
		}
		return at.errorf("the headroom leaves less than %s of %s to the run; lower it or give more memory",
			FormatSize(leastBudget), FormatSize(p.Memory))
	}
	return nil
}

func (s *spec) buildMachine(p, base *Profile) error {
	var err error
	if s.vcpus != nil {
		if p.VCPUs, err = parseCPUs(s.vcpus.text); err != nil {
			return s.vcpus.wrap(err)
		}
	}
	if p.VCPUs == 0 {
		return s.at.errorf("it has no vcpus; give a number of CPUs, or extend another profile")
	}
	if s.swap != nil {
		of := int64(0)
		if base != nil {
			of = base.Swap
		}
		if p.Swap, err = sizeOf(s.swap, of, true); err != nil {
			return err
		}
	}
	if s.pids != nil {
		if p.Pids, err = countOf(s.pids, 2*leastMainPids, maxPids); err != nil {
			return err
		}
	}
	if s.main != nil {
		if p.Main, err = sizeOf(s.main, p.Budget(), false); err != nil {
			return err
		}
	}
	return nil
}

func (s *spec) buildWorkers(p, base *Profile) error {
	if s.workers != nil {
		p.Workers = Workers{}
		if s.workers.text == "auto" {
			p.Workers.Auto = true
		} else {
			from, to, ranged := strings.Cut(s.workers.text, "-")
			if from == "" {
				from, ranged = s.workers.text, false
			}
			n, err := parseCount(from, 1, maxWorkers)
			if err != nil {
				return s.workers.errorf("%w, a range such as 3-4, or auto", err)
			}
			p.Workers.Count = int(n)
			if ranged {
				if n, err = parseCount(to, n+1, maxWorkers); err != nil {
					return s.workers.errorf("%w as the end of the range", err)
				}
				p.Workers.UpTo = int(n)
			}
		}
	} else if base == nil {
		p.Workers.Auto = true
	}
	if s.lightWorkers != nil {
		n, err := countOf(s.lightWorkers, 1, maxWorkers)
		if err != nil {
			return err
		}
		p.Workers.Light = int(n)
	}
	var err error
	if v := s.workerMemory; v != nil {
		if v.text == "share" {
			p.Worker.Memory = 0
		} else if p.Worker.Memory, err = sizeOf(v, p.Budget(), false); err != nil {
			return err
		}
	}
	if v := s.workerSwap; v != nil {
		if v.text == "share" {
			p.Worker.Swap = -1
		} else if p.Worker.Swap, err = sizeOf(v, p.Swap, true); err != nil {
			return err
		}
	}
	if v := s.workerPids; v != nil {
		if p.Worker.Pids, err = countOf(v, 1, maxPids); err != nil {
			return err
		}
	}
	return nil
}

func (s *spec) buildExpect(p, _ *Profile) error {
	if s.expectAt == nil {
		return nil
	}
	p.Expect = nil
	for _, x := range s.expect {
		n, err := countOf(x.workers, 1, maxWorkers)
		if err != nil {
			return err
		}
		from, to, ok := strings.Cut(x.memory.text, "-")
		if !ok {
			return x.memory.errorf("%q is no range of sizes; write it as 12GB-15GB", x.memory.text)
		}
		e := Expectation{Workers: int(n)}
		if e.From, err = ParseSize(strings.TrimSpace(from), 0); err == nil {
			e.To, err = ParseSize(strings.TrimSpace(to), 0)
		}
		if err != nil {
			return x.memory.wrap(err)
		}
		if e.From > e.To {
			return x.memory.errorf("%q ends before it begins", x.memory.text)
		}
		p.Expect = append(p.Expect, e)
	}
	return nil
}

func (s *spec) buildSource(p, base *Profile) error {
	from := s
	if s.sourceAt == nil {
		from = s.fileSource
	}
	switch {
	case from != nil:
		p.Source = Source{URL: from.sourceURL.or(""), Date: from.sourceDate.or(""), Note: from.sourceNote.or("")}
	case base == nil:
		p.Source = Source{Note: fmt.Sprintf("%s:%d", s.at.file, s.at.line)}
	}
	return nil
}

// check looks at what the parts of a profile mean together.
func (s *spec) check(p *Profile) error {
	at := func(v *value) *value {
		if v == nil {
			return &s.at
		}
		return v
	}
	budget := p.Budget()
	if p.Main > budget/2 {
		return at(s.main).errorf("main's %s are more than half of the %s of the run; lower it", FormatSize(p.Main), FormatSize(budget))
	}
	pool := budget - p.main(budget, p.VCPUs)
	if c := p.Worker.Memory; c > pool {
		return at(s.workerMemory).errorf("a worker of %s does not fit: the run has %s, and %s of them are main's; lower worker.memory or give more memory",
			FormatSize(c), FormatSize(budget), FormatSize(budget-pool))
	}
	if c, n := p.Worker.Memory, int64(p.Workers.Count); c > 0 && n > 0 && c > pool/n {
		return at(s.workers).errorf("%d workers of %s do not fit: the run has %s, and %s of them are main's; lower workers or worker.memory",
			n, FormatSize(c), FormatSize(budget), FormatSize(budget-pool))
	}
	if n := int64(p.Workers.Count); n > 0 && roundShare(pool/n) < leastWorker {
		return at(s.workers).errorf("%d workers would have %s each, less than the least, %s; lower workers", n, FormatSize(pool/n), FormatSize(leastWorker))
	}
	if c := p.Worker.Swap; c > p.Swap {
		return at(s.workerSwap).errorf("a worker's %s of swap are more than the machine's %s", FormatSize(c), FormatSize(p.Swap))
	}
	if c := p.Worker.Pids; c > 0 && c > p.pids(p.Memory)-leastMainPids {
		return at(s.workerPids).errorf("a worker's %d tasks do not fit the machine's %d, %d of which are main's; lower worker.pids or raise pids",
			c, p.pids(p.Memory), leastMainPids)
	}
	return nil
}

// main is what the workers leave to the command: as stated, or by the rule; never
// more than half of the budget.
func (p *Profile) main(budget int64, vcpus float64) int64 {
	if p.Main > 0 {
		return min(p.Main, budget/2)
	}
	return MainReserve(vcpus, budget)
}

// pids is pids.max of the run: as stated, or by the rule.
func (p *Profile) pids(memory int64) int64 {
	if p.Pids > 0 {
		return p.Pids
	}
	return MachinePids(memory)
}
