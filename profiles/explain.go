package profiles

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Write is one kernel file of a run and what is written to it.
type Write struct {
	Cgroup string // "machine" for the run, "machine/worker-*" for each worker's leaf
	File   string // memory.max, ...
	Value  string // as it is written and read back
	Why    string
}

// Files are the kernel files that hold the machine, in the order they are written.
func (m *Machine) Files() []Write {
	const run, leaf = "machine", "machine/worker-*"
	quota, period := m.CPUMax()
	d := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []Write{
		{run, "memory.swap.max", d(m.Swap), m.why.swap},
		{run, "memory.max", d(m.Budget), m.why.budget},
		{run, "pids.max", d(m.Pids), m.why.pids},
		{run, "cpu.max", fmt.Sprintf("%d %d", quota, period), m.why.cpus},
		{leaf, "memory.swap.max", d(m.Worker.Swap), m.why.workerSwap},
		{leaf, "memory.max", d(m.Worker.Memory), m.why.workerMemory},
		{leaf, "pids.max", d(m.Worker.Pids), m.why.workerPids},
		{leaf, "memory.oom.group", "1", "a worker is killed whole: no test goes on without its helpers"},
	}
}

// String is the recommendation as a reader would write it: "1 (2 for light suites)",
// "3–4", "auto".
func (w Workers) String() string {
	s := "auto"
	if !w.Auto {
		s = strconv.Itoa(w.Count)
		if w.UpTo > w.Count {
			s += "–" + strconv.Itoa(w.UpTo)
		}
	}
	if w.Light > 0 {
		s += fmt.Sprintf(" (%d for light suites)", w.Light)
	}
	return s
}

// WriteExplanation writes where each number of m comes from, down to the bytes that
// are written to each kernel file.
func WriteExplanation(out io.Writer, m *Machine) error {
	p := m.Profile
	w := &printer{out: out}
	w.printf("%s\n", m.Summary())
	if p.Title != "" {
		w.printf("%s\n", p.Title)
	}
	if p.File != "" {
		w.printf("defined in %s:%d\n", p.File, p.Line)
	}
	if p.Extends != "" {
		w.printf("extends %s\n", p.Extends)
	}

	w.printf("\nmemory\n")
	w.table(func(row func(...string)) {
		size := func(name string, n int64, why string) {
			row(name, FormatSize(n), strconv.FormatInt(n, 10), why)
		}
		less := func(name string, n int64, why string) {
			row(name, "− "+FormatSize(n), strconv.FormatInt(-n, 10), why)
		}
		if m.why.memoryGiven {
			size("the run", m.Budget, m.why.budget+"; no headroom is taken off it")
		} else {
			if p.Nominal != p.Memory {
				size("sold as", p.Nominal, "")
			}
			size("shown by the system", p.Memory, p.Basis.Kind+": "+p.Basis.Note)
			for _, h := range m.why.headroom {
				less(h.Name, h.Bytes, "headroom")
			}
			size("the run", m.Budget, "memory.max of the run, whole 64 KiB")
		}
		less("the command (main)", m.Main, m.why.main)
		size("the workers", int64(m.Workers)*m.Worker.Memory, fmt.Sprintf("%d × %s: %s", m.Workers, m.workerMemory(), m.why.workerMemory))
	})

	w.printf("\nworkers\n")
	w.table(func(row func(...string)) {
		row("recommended", p.Workers.String())
		row("at once", strconv.Itoa(m.Workers), m.why.workers)
	})

	w.printf("\nwritten, and read back before a process enters\n")
	w.table(func(row func(...string)) {
		for _, f := range m.Files() {
			row(f.Cgroup+"/"+f.File, f.Value, f.Why)
		}
	})

	if len(p.Expect) > 0 && p.Worker.Memory > 0 {
		w.printf("\nexpected memory of the machine\n")
		w.table(func(row func(...string)) {
			row("workers", "expected", "at caps of "+formatGB(p.Worker.Memory), "with -n")
			for _, e := range p.Expect {
				row(strconv.Itoa(e.Workers), formatGBRange(e.From, e.To), formatGB(int64(e.Workers)*p.Worker.Memory), withWorkers(p, e.Workers))
			}
		})
	}

	w.printf("\nsources\n")
	w.table(func(row func(...string)) {
		row("figures", source(p.Source.Note, p.Source.URL, p.Source.Date))
		if p.Basis.URL != "" {
			row("memory shown", source(p.Basis.Note, p.Basis.URL, ""))
		}
	})
	for i, n := range m.Notes {
		if i == 0 {
			w.printf("\nnotes\n")
		}
		w.printf("  %s\n", n)
	}
	return w.err
}

// withWorkers says what so many workers would get on the profile.
func withWorkers(p *Profile, n int) string {
	m, err := p.Resolve(Overrides{Workers: strconv.Itoa(n)}, Host{})
	if err != nil {
		return "do not fit"
	}
	if m.Worker.Memory == alignDown(p.Worker.Memory) {
		return "fit"
	}
	return fmt.Sprintf("do not fit the run's %s: %s each", FormatSize(m.Budget), FormatSize(m.Worker.Memory))
}

func source(note, url, date string) string {
	s := note
	if url != "" {
		s = strings.TrimPrefix(s+": "+url, ": ")
	}
	if date != "" {
		s += " (consulted " + date + ")"
	}
	return s
}

// formatGB writes n in decimal gigabytes, as the tables of expected memory are written.
func formatGB(n int64) string { return formatIn(n, 1e9) + " GB" }

func formatGBRange(from, to int64) string { return formatIn(from, 1e9) + "–" + formatGB(to) }

// WriteList writes the profiles of s as a table by family. A profile that this machine
// cannot hold is listed with the reason.
func WriteList(out io.Writer, s *Set, h Host) error {
	w := &printer{out: out}
	w.table(func(row func(...string)) {
		row("NAME", "vCPU", "MEMORY", "SWAP", "WORKERS", "EACH AT MOST")
		group := ""
		for _, name := range s.order {
			if g := s.group(name); g != group {
				row()
				row(g)
				group = g
			}
			p, err := s.Profile(name, h)
			if err != nil {
				row("  "+name, err.Error())
				continue
			}
			m, err := p.Resolve(Overrides{}, h)
			if err != nil {
				row("  "+name, err.Error())
				continue
			}
			workers := p.Workers.String()
			if p.Workers.Auto {
				workers = strings.Replace(workers, "auto", fmt.Sprintf("auto: %d", m.Workers), 1)
			}
			row("  "+name, formatCPUs(m.VCPUs), FormatSize(m.Memory), formatSwap(m.Swap), workers, m.workerMemory())
		}
	})
	w.printf("\n'sandrun profiles NAME' explains one, with the flags that change it.\n")
	return w.err
}

// group is the heading that a profile is listed under: its family, or its own file.
func (s *Set) group(name string) string {
	switch p := s.specs[name]; {
	case p == nil:
		return name
	case p.own:
		return s.File
	default:
		return p.family
	}
}

// workerMemory is a worker's cap for a reader; one that the profile states in decimal
// units is shown in them.
func (m *Machine) workerMemory() string {
	if p := m.Profile.Worker.Memory; m.Worker.Memory == alignDown(p) {
		return formatStated(p)
	}
	return FormatSize(m.Worker.Memory)
}

// formatStated writes a size in decimal units if it was stated in them.
func formatStated(n int64) string {
	if n%1e8 == 0 && n%MiB != 0 {
		return formatGB(n)
	}
	return FormatSize(n)
}

// A printer writes until the first error and keeps it.
type printer struct {
	out io.Writer
	err error
}

func (w *printer) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	var n int
	n, w.err = w.out.Write(b)
	return n, w.err
}

func (w *printer) printf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

// table writes rows in aligned columns, indented, without blanks at the line's end.
// The last cell of a row has no part in the width of its column.
func (w *printer) table(rows func(row func(...string))) {
	var all [][]string
	rows(func(cells ...string) { all = append(all, cells) })
	widths := map[int]int{}
	for _, r := range all {
		for i := 0; i < len(r)-1; i++ {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	for _, r := range all {
		var line strings.Builder
		for i, c := range r {
			line.WriteString("  " + c)
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
			}
		}
		w.printf("%s\n", strings.TrimRight(line.String(), " "))
	}
}
