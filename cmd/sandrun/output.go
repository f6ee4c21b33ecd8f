package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sandrun/sandrun/harness"
	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/supervisor"
)

// follow reads along with a command whose output names its tests (go test -v or
// -json), so that a killed worker can be told from its test. The output stays what
// it is, to the byte. Everything else keeps its own standard output, with nothing in
// between: then tests is nil. So does what goes to a terminal, unless it is go test
// over packages, which gives its tests a pipe wherever its own output goes.
//
// finish must be called when all processes of the run are gone.
func follow(c *supervisor.Command) (tests harness.Tests, finish func() error, err error) {
	nothing := func() error { return nil }
	if !namesTests(c.Argv) || sys.IsTerminal(int(c.Stdout.Fd())) && !overPackages(c.Argv) {
		return nil, nothing, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nothing, err
	}
	tests = harness.NewGoTestTracker()
	out := c.Stdout
	if sys.SameFile(c.Stdout, c.Stderr) {
		c.Stderr = w // one pipe keeps the order of 2>&1
	}
	c.Stdout = w
	// A reader that goes away ends the command, as it would without us; see takeSignals.
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.MultiWriter(out, tests), r)
		_ = r.Close() // the next write of the command gets SIGPIPE
		if errors.Is(err, syscall.EPIPE) {
			err = nil
		}
		copied <- err
	}()
	return tests, func() error {
		_ = w.Close()
		return <-copied
	}, nil
}

// namesTests reports whether argv asks go test for lines that name its tests.
func namesTests(argv []string) bool {
	i := slices.Index(argv, "test")
	if i < 0 {
		return false
	}
	return slices.ContainsFunc(argv[i:], func(a string) bool {
		switch a {
		case "-v", "--v", "-v=true", "-json", "--json", "-json=true", "-test.v", "-v=test2json":
			return true
		}
		return false
	})
}

// overPackages reports whether argv is go test with a list of packages.
func overPackages(argv []string) bool {
	return len(argv) > 2 && filepath.Base(argv[0]) == "go" && argv[1] == "test" &&
		slices.ContainsFunc(argv[2:], func(a string) bool {
			return strings.HasPrefix(a, "./") || strings.HasSuffix(a, "...")
		})
}
