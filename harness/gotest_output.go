package harness

import (
	"bytes"
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A GoTestTracker reads what `go test` prints, in any of its forms (plain, -v, -json),
// and knows which tests are running and how each package ended. It is an io.Writer for
// a copy of the command's output, which it never changes and of which it keeps only
// the line that is not complete. One stream is for one tracker: the partial lines of
// two would mix.
//
// What it can know depends on the form. With -json every begin and end is told as it
// happens. With -v the end of a subtest is told only when its parent ends, so among
// subtests that run one after the other the last to begin counts as running, and for
// subtests that run in parallel their parent is named instead. Plain output tells
// nothing of a test before it has failed.
type GoTestTracker struct {
	mu   sync.Mutex
	line []byte // the last line, as far as it was written
	cut  bool   // line has lost its beginning
	// block is what plain output told since the last package's result: its package
	// is known only at its end.
	block *goTestRun
	open  map[string]*goTestRun  // by package: what -json told of packages that have not ended
	runs  map[string][]GoTestRun // by package, in the order of their ends
	count int                    // of all in runs
}

var _ Tests = (*GoTestTracker)(nil)

// A GoTestRun is what go test said of one package, once.
type GoTestRun struct {
	Package string
	OK      bool
	// Ran is false where no test binary ran: the result was cached, there are no test
	// files, or the package did not build.
	Ran    bool
	Cached bool
	// Elapsed is the time that go test measured, the wait for admission included.
	Elapsed time.Duration
	// Ended is what go test said of the binary's end, if it did: "signal: killed" or
	// "exit status 2".
	Ended string
	// Cut are the tests that had begun and not ended when the binary ended.
	Cut []string
}

// Bounds on what is kept of output that never ends a line, a test or a package.
const (
	maxOutputLine = 64 << 10
	keptLine      = 4 << 10
	maxTests      = 4 << 10
	maxRuns       = 64 << 10
	maxTestName   = 1 << 10
)

// NewGoTestTracker returns a tracker that has seen nothing.
func NewGoTestTracker() *GoTestTracker {
	return &GoTestTracker{
		block: newGoTestRun(false),
		open:  map[string]*goTestRun{},
		runs:  map[string][]GoTestRun{},
	}
}

// Write takes the next part of the output. It never fails.
func (t *GoTestTracker) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		// A ^V begins a line too: go test -v=test2json puts it before its markers,
		// because what a test printed before may lack a newline.
		i := bytes.IndexByte(p, '\n')
		if v := bytes.IndexByte(p[:max(i, 0)], marker); v >= 0 {
			i = v
		} else if i < 0 {
			i = bytes.IndexByte(p, marker)
		}
		if i < 0 {
			t.line = append(t.line, p...)
			t.shorten()
			break
		}
		if len(t.line) == 0 {
			t.cut = i > maxOutputLine
			t.handle(p[:i])
		} else {
			t.line = append(t.line, p[:i]...)
			t.shorten()
			t.handle(t.line)
		}
		t.line, t.cut = t.line[:0], false
		p = p[i+1:]
	}
	return n, nil
}

const marker = 0x16 // ^V

// shorten bounds the incomplete line. Its end is what is kept: after output without a
// newline, that is where go test's own words are.
func (t *GoTestTracker) shorten() {
	if len(t.line) > maxOutputLine {
		t.line = t.line[:copy(t.line, t.line[len(t.line)-keptLine:])]
		t.cut = true
	}
}

// Running names the tests of the package that have begun and not ended, those that
// wait for their subtests left out. It is empty once the package has ended.
func (t *GoTestTracker) Running(pkg string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if run := t.open[pkg]; run != nil {
		return run.running()
	}
	return nil
}

// Runs is what was said of the package so far, in order.
func (t *GoTestTracker) Runs(pkg string) []GoTestRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.runs[pkg])
}

// Cut names the tests that the end of the nth test binary of the package cut short.
func (t *GoTestTracker) Cut(pkg string, nth int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, run := range t.runs[pkg] {
		if !run.Ran {
			continue
		}
		if nth == 0 {
			return slices.Clone(run.Cut)
		}
		nth--
	}
	if run := t.open[pkg]; run != nil && nth == 0 { // go test itself was ended
		return run.running()
	}
	return nil
}

// handle takes one whole line, or one that lost its beginning.
func (t *GoTestTracker) handle(line []byte) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if !t.cut {
		if i := bytes.Index(line, []byte(`{"`)); i >= 0 && t.handleJSON(line[i:]) {
			return
		}
		if t.handleResult(line) {
			return
		}
	}
	t.handleTest(line)
	t.block.say(line)
}

// goTestEvent is an event of `go test -json` (go doc test2json).
type goTestEvent struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

var (
	actionKey    = []byte(`"Action":"`)
	packageKey   = []byte(`"Package":"`)
	outputAction = []byte(`"Action":"output"`)
	// telling are parts of the output events that say more than what a test prints.
	telling = [][]byte{
		[]byte(`"Output":"ok  \t`), []byte(`"Output":"FAIL\t`), []byte(`"Output":"?   \t`), []byte(`"Output":"\t`),
		[]byte("signal: "), []byte("exit status "),
	}
)

// handleJSON takes a line of -json and reports whether it was one.
func (t *GoTestTracker) handleJSON(line []byte) bool {
	if !bytes.Contains(line, actionKey) {
		return false
	}
	if bytes.Contains(line, outputAction) && !slices.ContainsFunc(telling, func(part []byte) bool { return bytes.Contains(line, part) }) {
		// What a test prints needs no decoding: most of a long output is that.
		if _, rest, ok := bytes.Cut(line, packageKey); ok {
			if pkg, _, ok := bytes.Cut(rest, []byte(`"`)); ok {
				if run := t.open[string(pkg)]; run != nil {
					run.said = run.said[:0]
				}
				return true
			}
		}
	}
	var e goTestEvent
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		return false
	}
	if e.Package == "" {
		return true // a build event
	}
	run := t.open[e.Package]
	if run == nil {
		if len(t.open) >= maxRuns {
			return true
		}
		run = newGoTestRun(true)
		t.open[e.Package] = run
	}
	switch e.Action {
	case "start":
		t.open[e.Package] = newGoTestRun(true)
	case "run", "cont":
		run.begin(e.Test)
	case "pause":
		run.pause(e.Test)
	case "output":
		out := []byte(strings.TrimRight(e.Output, "\r\n"))
		if r, ok := parseResult(out); ok && r.Package == e.Package {
			r.Ended = run.ended()
			run.result = r
		} else {
			run.say(out)
		}
	case "pass", "fail", "skip", "bench":
		if e.Test != "" {
			run.end(e.Test)
			break
		}
		r := run.result
		if r.Package == "" { // no result line, as where go test was told to print less
			r = GoTestRun{Package: e.Package, OK: e.Action != "fail", Ran: e.Action != "skip", Ended: run.ended()}
		}
		r.Elapsed = cmp.Or(r.Elapsed, time.Duration(e.Elapsed*float64(time.Second)))
		t.finish(r, run)
		delete(t.open, e.Package)
	}
	return true
}

// handleResult takes a line that ends a package's plain output.
func (t *GoTestTracker) handleResult(line []byte) bool {
	r, ok := parseResult(line)
	if !ok {
		return false
	}
	if !r.Ran && !r.Cached { // nothing of it was running
		t.finish(r, newGoTestRun(false))
		return true
	}
	r.Ended = t.block.ended()
	t.finish(r, t.block)
	t.block = newGoTestRun(false)
	return true
}

func (t *GoTestTracker) finish(r GoTestRun, run *goTestRun) {
	if t.count >= maxRuns {
		return
	}
	t.count++
	if r.Ran {
		r.Cut = run.running()
	}
	if r.OK {
		r.Ended = ""
	}
	t.runs[r.Package] = append(t.runs[r.Package], r)
}

// resultLine is what cmd/go prints of a package:
//
//	ok  	example/a	0.012s	coverage: 85.0% of statements [no tests to run]
//	ok  	example/a	(cached)
//	FAIL	example/a	0.012s
//	FAIL	example/a [build failed]
//	?   	example/a	[no test files]
//		example/a		coverage: 0.0% of statements
var resultLine = regexp.MustCompile(`^(ok  |FAIL|\?   |)\t([^\s\[]+)(?:\t(?:([0-9.]+s)|(\(cached\))|(\[no test files\])|\tcoverage: .*)?.*| (\[[a-z ]+ failed\]))$`)

func parseResult(line []byte) (GoTestRun, bool) {
	switch {
	case len(line) > keptLine:
		return GoTestRun{}, false
	case bytes.HasPrefix(line, []byte("ok  \t")), bytes.HasPrefix(line, []byte("FAIL\t")), bytes.HasPrefix(line, []byte("?   \t")):
	case bytes.HasPrefix(line, []byte("\t")) && bytes.Contains(line, []byte("\t\tcoverage: ")):
	default:
		return GoTestRun{}, false
	}
	m := resultLine.FindSubmatch(line)
	if m == nil {
		return GoTestRun{}, false
	}
	r := GoTestRun{Package: string(m[2]), OK: string(m[1]) != "FAIL"}
	switch {
	case len(m[3]) > 0 && (string(m[1]) == "ok  " || string(m[1]) == "FAIL"):
		r.Ran = true
		seconds, err := strconv.ParseFloat(strings.TrimSuffix(string(m[3]), "s"), 64)
		if err != nil {
			return GoTestRun{}, false
		}
		r.Elapsed = time.Duration(seconds * float64(time.Second))
	case len(m[4]) > 0 && string(m[1]) == "ok  ":
		r.Cached = true
	case len(m[5]) > 0 && string(m[1]) == "?   ":
	case len(m[6]) > 0 && string(m[1]) == "FAIL":
	case len(m[1]) == 0 && bytes.Contains(line, []byte("\t\tcoverage: ")):
	default:
		return GoTestRun{}, false
	}
	return r, true
}

// The markers of -v that carry a test's name to the end of the line, as test2json
// knows them, and those of a test's end, which may be indented.
var (
	beginMarker = regexp.MustCompile(`=== (RUN  |PAUSE|CONT ) ((?:Test|Benchmark|Example|Fuzz)\S*)$`)
	endMarker   = regexp.MustCompile(`--- (?:PASS|FAIL|SKIP|BENCH): (\S+)(?: \([0-9.]+s\))?$`)
	listMarker  = regexp.MustCompile(`^\t\t(\S+) \([0-9hms.]+\)$`)
)

// handleTest takes a line of -v. Its markers are looked for at the end of the line,
// not only at its beginning: a test may have printed something without a newline.
func (t *GoTestTracker) handleTest(line []byte) {
	if len(line) > keptLine {
		line = line[len(line)-keptLine:]
	}
	block := t.block
	if block.listing {
		if m := listMarker.FindSubmatch(line); m != nil {
			block.list(string(m[1]))
			return
		}
		block.listing = false
	}
	switch {
	case bytes.Contains(line, []byte("=== ")):
		if m := beginMarker.FindSubmatch(line); m != nil {
			switch name := string(m[2]); string(m[1]) {
			case "PAUSE":
				block.pause(name)
			default:
				block.begin(name)
			}
		}
	case bytes.Contains(line, []byte("--- ")):
		if m := endMarker.FindSubmatch(line); m != nil {
			block.end(string(m[1]))
		}
	case bytes.Equal(line, []byte("\trunning tests:")):
		block.listing = true
	}
}
