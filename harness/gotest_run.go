package harness

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// goTestRun is the state of one test binary, as far as its output told.
type goTestRun struct {
	// exact says that every end is told when it happens (-json).
	exact   bool
	tests   map[string]*goTest // those that have begun and not ended
	began   int                // how many ever began
	listing bool               // in the list of a test binary that timed out
	listed  []string
	said    []byte    // the end of the last line that was not blank
	result  GoTestRun // the result line, where the end comes as an event behind it
}

type goTest struct {
	order    int
	paused   bool // waits in t.Parallel
	parallel bool // was paused once
}

func newGoTestRun(exact bool) *goTestRun {
	return &goTestRun{exact: exact, tests: map[string]*goTest{}}
}

// begin notes that a test begins, or goes on after a pause.
func (r *goTestRun) begin(name string) {
	if name == "" || len(name) > maxTestName {
		return
	}
	if test, ok := r.tests[name]; ok {
		test.paused = false
		return
	}
	if !r.exact {
		// A test that never called t.Parallel has ended when its parent starts the
		// next: t.Run does not return before.
		above := r.parent(name)
		for other, test := range r.tests {
			if !test.parallel && r.parent(other) == above {
				r.end(other)
			}
		}
	}
	if len(r.tests) >= maxTests {
		return
	}
	r.began++
	r.tests[name] = &goTest{order: r.began}
}

func (r *goTestRun) pause(name string) {
	r.begin(name)
	if test, ok := r.tests[name]; ok {
		test.paused, test.parallel = true, true
	}
}

// end notes that a test has ended, and with it whatever it started.
func (r *goTestRun) end(name string) {
	delete(r.tests, name)
	for other := range r.tests {
		if strings.HasPrefix(other, name+"/") {
			delete(r.tests, other)
		}
	}
}

// say notes a line that is no marker.
func (r *goTestRun) say(line []byte) {
	const most = 100 // more than cmd/go's words about an end
	line = bytes.TrimRight(line, " \t\r\n")
	if len(line) > 0 {
		r.said = append(r.said[:0], line[max(0, len(line)-most):]...)
	}
}

var endedLine = regexp.MustCompile(`(?:signal: [a-z0-9 ]+(?: \(core dumped\))?|exit status \d+)$`)

// ended is what cmd/go told of the binary's end, if its last line was that. It comes
// right behind what the test printed last, newline or not.
func (r *goTestRun) ended() string {
	return string(endedLine.Find(r.said))
}

// list notes a test that the binary itself names as running, when it times out.
func (r *goTestRun) list(name string) {
	if len(r.listed) < maxTests && len(name) <= maxTestName {
		r.listed = append(r.listed, name)
	}
}

// running are the tests that run, in the order in which they began, without those
// that only wait for a subtest.
func (r *goTestRun) running() []string {
	if len(r.listed) > 0 {
		return slices.DeleteFunc(slices.Clone(r.listed), func(name string) bool {
			return slices.ContainsFunc(r.listed, func(other string) bool { return strings.HasPrefix(other, name+"/") })
		})
	}
	// Below a test of which several subtests ran in parallel, -v does not tell which
	// of them have ended: the test itself is all that is certain.
	parallel := map[string]int{}
	if !r.exact {
		for name, test := range r.tests {
			if test.parallel && !test.paused {
				if p := r.parent(name); p != "" {
					parallel[p]++
				}
			}
		}
	}
	certain := func(name string) bool {
		for p := r.parent(name); p != ""; p = r.parent(p) {
			if parallel[p] > 1 {
				return false
			}
		}
		return true
	}
	waits := map[string]bool{} // for a subtest
	var names []string
	for name, test := range r.tests {
		if !test.paused && certain(name) {
			names = append(names, name)
			for p := r.parent(name); p != ""; p = r.parent(p) {
				waits[p] = true
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return waits[name] })
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(r.tests[a].order, r.tests[b].order) })
	return names
}

// parent is the name of the test that started this one, or "" where go test did. A
// slash does not settle it: a subtest may have one in its own name.
func (r *goTestRun) parent(name string) string {
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		if _, ok := r.tests[name[:i]]; ok {
			return name[:i]
		}
	}
	return ""
}
