// Package harness knows test runners: how the workers of each come to sandrun's shim,
// what they are called, and what the runner's output tells about them.
//
// Nothing in the project under test is edited, and the command line is not read: an
// adapter works by the environment alone, so that it also works under make, npm or a
// script of the user's.
package harness

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/sandrun/sandrun/report"
)

// The kinds of request, each the name that the shim was called by.
const (
	KindWorker = "worker"  // sandrun worker -- CMD...
	KindGoExec = "go-exec" // cmd/go's -exec
)

// Names are the multi-call names of the sandrun binary that adapters put into the
// environment; Links makes a symbolic link for each.
var Names = []string{KindGoExec}

// An Adapter makes a runner's workers start through sandrun. It holds no state: both
// methods are functions of their arguments and of the adapter's own fields.
type Adapter interface {
	// Name is the runner's name, as it appears in report.Worker.Adapter.
	Name() string
	// Kind is the kind of request that Place answers.
	Kind() string
	// Env returns environ with what leads the runner's workers to the shim through
	// the links in the directory link, and notes on what stands in the way, a
	// sentence each. It does not change environ.
	Env(link string, environ []string) (env, notes []string, err error)
	// Place says what to do with one process that came to the shim.
	Place(Request) Placement
}

// A Request is what the shim of one process sent.
type Request struct {
	Kind  string
	Label string   // of --label, or empty
	Argv  []string // of the program to become; Argv[0] may be a path
	Dir   string   // its working directory, absolute
}

// A Placement is the answer to a Request.
type Placement struct {
	// Worker is false for a process that is to pass through: it stays where it is.
	Worker bool
	Label  string
	// ExtraArgs go right behind argv[0].
	ExtraArgs []string
}

// Adapters is a set of adapters, one for each kind of request.
type Adapters []Adapter

// Default returns every adapter, for a machine that runs so many workers at once.
func Default(workers int) Adapters {
	return Adapters{Command{}, GoTest{Workers: workers}}
}

// Env is the environment of the user's command: environ changed by every adapter in turn.
func (a Adapters) Env(link string, environ []string) (env, notes []string, err error) {
	env = environ
	for _, adapter := range a {
		e, n, err := adapter.Env(link, env)
		if err != nil {
			return nil, nil, err
		}
		env, notes = e, append(notes, n...)
	}
	return env, notes, nil
}

// Place asks the adapter for r.Kind. It reports false when there is none.
func (a Adapters) Place(r Request) (adapter string, p Placement, ok bool) {
	for _, adapter := range a {
		if adapter.Kind() == r.Kind {
			return adapter.Name(), adapter.Place(r), true
		}
	}
	return "", Placement{}, false
}

// Command places any program that is started by `sandrun worker`.
type Command struct{}

var _ Adapter = Command{}

// Name is "command".
func (Command) Name() string { return "command" }

// Kind is KindWorker.
func (Command) Kind() string { return KindWorker }

// Env leaves the environment as it is: the user writes `sandrun worker` themselves.
func (Command) Env(_ string, environ []string) (env, notes []string, err error) {
	return environ, nil, nil
}

// Place makes every request a worker, labelled as asked or else by its command line.
func (Command) Place(r Request) Placement {
	return Placement{Worker: true, Label: label(r)}
}

// labelWidth bounds a label that is made from a command line, in characters.
const labelWidth = 48

// label is what the user asked for, or else the program's base name and as many of
// its arguments as tell it from its siblings under xargs or parallel.
func label(r Request) string {
	if r.Label != "" {
		return r.Label
	}
	if len(r.Argv) == 0 {
		return "worker"
	}
	words := append([]string{filepath.Base(r.Argv[0])}, r.Argv[1:]...)
	s := strings.Join(words, " ")
	if utf8.RuneCountInString(s) <= labelWidth {
		return s
	}
	return string([]rune(s)[:labelWidth-1]) + "…"
}

// Tests is implemented by readers of a runner's output.
type Tests interface {
	// Write takes the next part of the output. It never fails.
	Write([]byte) (int, error)
	// Cut names the tests that the end of a worker cut short: of the nth process with
	// this label, counted from 0 in the order of their ends.
	Cut(label string, nth int) []string
}

// NameTests fills in which test was running in each worker that was ended from
// outside, as far as the runner's output told.
func NameTests(tests Tests, workers []report.Worker) {
	seen := map[string]int{}
	for i := range workers {
		w := &workers[i]
		nth := seen[w.Label]
		seen[w.Label]++
		if w.Test == "" && (w.Verdict.Killed() || w.Verdict == report.Signaled) {
			w.Test = listTests(tests.Cut(w.Label, nth))
		}
	}
}

// listTests writes the names of tests that ran side by side, at most three.
func listTests(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
