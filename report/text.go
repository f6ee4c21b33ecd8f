package report

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
)

// Options say how the summary is to look.
type Options struct {
	Color bool
	// Width is how many columns a line may take; 0 is no bound, for a log file.
	Width int
	// ASCII is for terminals whose locale is not UTF-8.
	ASCII bool
}

// OptionsFor chooses Options: colour on a terminal only, and not with NO_COLOR
// (https://no-color.org) or TERM=dumb; ASCII where LC_ALL, LC_CTYPE or LANG (the first
// that is set) names a locale that is not UTF-8. No locale at all, as in most
// containers, is taken for UTF-8. The width is used on a terminal only.
func OptionsFor(environ []string, terminal bool, width int) Options {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	locale := strings.ToUpper(cmp.Or(env["LC_ALL"], env["LC_CTYPE"], env["LANG"]))
	o := Options{
		Color: terminal && env["NO_COLOR"] == "" && env["TERM"] != "dumb",
		ASCII: locale != "" && !strings.Contains(locale, "UTF-8") && !strings.Contains(locale, "UTF8"),
	}
	if terminal {
		o.Width = width
	}
	return o
}

// mostListed is how many workers the summary lists. The rest are counted; whoever has
// so many wants the JSON file.
const mostListed = 25

// Write writes the summary of run: a line that names the machine, a line for each
// worker that a cap, the machine or a signal ended, the notes, and a closing line.
// Workers that failed by themselves are only counted: their runner has shown why.
func Write(w io.Writer, run *Run, o Options) error {
	p := printer{Options: o}
	p.header(run)
	p.workers(run.Workers)
	for _, n := range run.Notes {
		p.line("  " + p.paint(faint, "note: "+Printable(n)))
	}
	p.closing(run)
	out := p.buf.String()
	if o.ASCII {
		out = ascii.Replace(out)
	}
	_, err := io.WriteString(w, out)
	return err
}

// ascii spells the signs of the summary, and no others, in ASCII.
var ascii = strings.NewReplacer("✗", "x", "·", "-", "≥", ">=", "…", "...")

// The styles use the terminal's own sixteen colours, which fit its background.
var (
	bold   = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	red    = lipgloss.NewStyle().Foreground(lipgloss.Red)
	green  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
)

type printer struct {
	Options
	buf bytes.Buffer
}

func (p *printer) line(s string) {
	p.buf.WriteString(strings.TrimRight(s, " "))
	p.buf.WriteByte('\n')
}

func (p *printer) paint(style lipgloss.Style, s string) string {
	if !p.Color || s == "" {
		return s
	}
	return style.Render(s)
}

func (p *printer) header(run *Run) {
	m := run.Profile
	parts := []string{
		Printable(m.Name),
		strconv.FormatFloat(m.VCPUs, 'f', -1, 64) + " vCPU",
		FormatBytes(m.Memory),
		"swap " + formatLimit("memory.swap.max", m.Swap),
		kernel(run.Kernel),
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	p.parts(p.paint(bold, "sandrun")+"  ", 4, parts)
}

// kernel names the kernel by its version's first two numbers: "guest kernel 7.2".
func kernel(k Kernel) string {
	name := "kernel"
	if k.Where == "guest" {
		name = "guest kernel"
	}
	major, rest, ok := strings.Cut(k.Release, ".")
	if !ok {
		return Printable(strings.TrimSpace(name + " " + k.Release))
	}
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	return Printable(name + " " + major + "." + minor)
}

// listed reports whether the summary has a line for w.
func listed(w Worker) bool {
	return w.Verdict.Killed() || w.Verdict == Signaled || w.Verdict == Error
}

const (
	mark       = "✗"
	gap        = "   "
	labelWidth = 48 // the widest label column; a longer label is cut on a terminal
	whyWidth   = 40 // the narrowest column of evidence that still reads well
)

func (p *printer) workers(all []Worker) {
	var rows []Worker
	for _, w := range all {
		if listed(w) {
			rows = append(rows, w)
		}
	}
	more := max(0, len(rows)-mostListed)
	rows = rows[:len(rows)-more]

	label, verdict := 0, 0
	for _, w := range rows {
		label = max(label, lipgloss.Width(Printable(name(w))))
		verdict = max(verdict, len(w.Verdict))
	}
	label = min(label, labelWidth)
	fixed := len("  ") + lipgloss.Width(mark) + len(" ") + len(gap) + verdict + len(gap)
	if p.Width > 0 {
		label = max(min(label, p.Width-fixed-whyWidth), min(label, 16))
	}
	for _, w := range rows {
		s := Printable(name(w))
		if p.Width > 0 {
			s = middle(s, label)
		}
		head := "  " + p.paint(red, mark) + " " + pad(p.paint(bold, s), label) + gap +
			pad(p.paint(red, Printable(string(w.Verdict))), verdict) + gap
		why := strings.Split(cmp.Or(w.Evidence.Why, Explain(w)), separator)
		for i := range why {
			why[i] = Printable(why[i])
		}
		p.parts(head, fixed+label, why)
	}
	if more > 0 {
		p.line("  " + p.paint(faint, "… and "+FormatCount(int64(more))+" more, in the report of --json"))
	}
}

func name(w Worker) string { return cmp.Or(w.Label, w.ID) }

// below is where a line goes on that has no room at its own column.
const below = 6

// parts writes parts behind head, which ends at column. Where they do not fit they go
// on under the first, broken between parts and never inside one; parts that are too
// long for that begin further left.
func (p *printer) parts(head string, column int, parts []string) {
	used := lipgloss.Width(head)
	if p.Width == 0 {
		p.line(head + strings.Join(parts, separator))
		return
	}
	for i, part := range parts {
		if i > 0 && column+lipgloss.Width(part) > p.Width {
			column = min(column, below)
			break
		}
	}
	line := head
	for i, part := range parts {
		n := lipgloss.Width(part)
		switch {
		case i == 0 && used > below && used+n > p.Width:
			p.line(line)
			column = min(column, below)
			line, used = strings.Repeat(" ", column)+part, column+n
		case i == 0:
			line, used = line+part, used+n
		case used+lipgloss.Width(separator)+n > p.Width:
			p.line(line)
			line, used = strings.Repeat(" ", column)+part, column+n
		default:
			line, used = line+separator+part, used+lipgloss.Width(separator)+n
		}
	}
	p.line(line)
}

func (p *printer) closing(run *Run) {
	n := map[string]int64{}
	for _, w := range run.Workers {
		switch {
		case w.Verdict.Killed():
			n["killed"]++
		default:
			n[string(w.Verdict)]++
		}
	}
	var counts []string
	count := func(key, word string, style lipgloss.Style) {
		if n[key] > 0 {
			counts = append(counts, p.paint(style, FormatCount(n[key])+" "+word))
		}
	}
	count(string(Passed), "passed", green)
	count(string(Failed), "failed", red)
	count("killed", "killed", red)
	count(string(Signaled), "ended by a signal", red)
	count(string(Canceled), "canceled", yellow)
	count(string(Exited), "ended", yellow)
	switch e := n[string(Error)]; e {
	case 0:
	case 1:
		count(string(Error), "error", red)
	default:
		count(string(Error), "errors", red)
	}
	parts := []string{"no workers"}
	if len(run.Workers) > 0 {
		parts[0] = plural(int64(len(run.Workers)), "worker", "workers") + ": " + strings.Join(counts, ", ")
	}
	if peak := run.Machine.MemoryPeak; peak > 0 {
		// The peak is held against the cap that clips it: the budget, which is
		// what the machine has less the headroom.
		whole := cmp.Or(run.Machine.Limits.Memory, run.Profile.Budget, run.Profile.Memory)
		parts = append(parts, "machine peak "+formatBytesOf(peak, whole))
	}
	parts = append(parts, FormatDuration(time.Duration(run.Wall)))
	if run.Exit != run.CommandExit {
		parts = append(parts, p.paint(red, "exit "+strconv.Itoa(run.Exit)+", the command's own was "+strconv.Itoa(run.CommandExit)))
	}
	p.parts("  ", 4, parts)
}

// pad fills s, which may hold colours, with blanks up to width columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}

// middle cuts s to width columns by leaving out its middle. Two thirds of what stays
// are the end, which is what tells one import path or file from the next.
func middle(s string, width int) string {
	if lipgloss.Width(s) <= width {
		return s
	}
	if width < 2 {
		return "…"[:min(width, 1)*len("…")]
	}
	runes := []rune(s)
	headMax := (width - 1) / 3
	head, tail := 0, len(runes)
	used := 0
	for head < len(runes) {
		n := lipgloss.Width(string(runes[head]))
		if used+n > headMax {
			break
		}
		used += n
		head++
	}
	for tail > head {
		n := lipgloss.Width(string(runes[tail-1]))
		if used+n > width-1 {
			break
		}
		used += n
		tail--
	}
	return string(runes[:head]) + "…" + string(runes[tail:])
}
