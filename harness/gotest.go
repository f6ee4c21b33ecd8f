package harness

import (
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// GoTest is the adapter of `go test`: cmd/go starts each test binary, one a package,
// through the program of its -exec flag, which is sandrun's shim.
type GoTest struct {
	// Workers is how many workers the machine runs at once.
	Workers int
}

var _ Adapter = GoTest{}

// Name is "go test".
func (GoTest) Name() string { return "go test" }

// Kind is KindGoExec.
func (GoTest) Kind() string { return KindGoExec }

// Env adds to GOFLAGS what cmd/go needs to start test binaries through the shim:
//
//   - -exec=link/go-exec, unless GOFLAGS has an -exec of the user's own, or the tests are
//     for another machine and go has a program to run them by. An -exec on the command
//     line wins by itself.
//   - -p=Workers, unless GOFLAGS has a -p. cmd/go kills a test binary that has not
//     ended a minute after its -timeout, and the clock of that timer runs while the
//     binary waits for admission. With no more binaries at once than the machine has
//     places for, none waits. It holds for compilers too: they run on the same machine.
//
// Flags that are set elsewhere (`go env -w`) are carried over, because GOFLAGS in the
// environment replaces them.
func (g GoTest) Env(link string, environ []string) (env, notes []string, err error) {
	if err := plainPath(link); err != nil {
		return nil, nil, err
	}
	flags, source := goEnv(environ, "GOFLAGS")
	fields, err := splitFlags(flags)
	if err != nil {
		// cmd/go itself will refuse it, in its own words. Appending to it could turn
		// it into something that is accepted.
		return environ, []string{fmt.Sprintf("GOFLAGS of %s is left as it is, because go cannot read it (%v): go test gets no workers.", source, err)}, nil
	}
	own, _ := lookupFlag(fields, "exec")
	nested := filepath.Base(own) == KindGoExec // of a run around this one, whose socket is not ours
	if own != "" && !nested {
		return environ, []string{fmt.Sprintf("GOFLAGS of %s has -exec=%s, which is kept: go test gets no workers.", source, own)}, nil
	}
	if runner := crossRunner(environ); runner != "" {
		return environ, []string{fmt.Sprintf("go test runs binaries for another machine by %s, which is kept: go test gets no workers.", runner)}, nil
	}
	add := []string{"-exec=" + filepath.Join(link, KindGoExec)}
	if p, ok := lookupFlag(fields, "p"); !ok || nested { // of two, the last counts
		if g.Workers > 0 {
			add = append(add, "-p="+strconv.Itoa(g.Workers))
		}
	} else if n, err := strconv.Atoi(p); err == nil && g.Workers > 0 && n > g.Workers {
		notes = append(notes, fmt.Sprintf("GOFLAGS of %s has -p=%d for %s: test binaries that wait for a place do so on the clock of go test's -timeout.",
			source, n, workers(g.Workers)))
	}
	if flags = strings.TrimSpace(flags); flags != "" {
		add = slices.Insert(add, 0, flags) // as written: it keeps its own quotes
	}
	return setenv(environ, "GOFLAGS", strings.Join(add, " ")), notes, nil
}

func workers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return strconv.Itoa(n) + " workers"
}

// Place makes a test binary a worker; anything else that comes through -exec
// (`go run`) passes through.
//
// A test binary gets -test.testlogfile, which cmd/go leaves out when there is an
// -exec, and without which it caches no result: the binary writes there which files
// and variables it looked at. cmd/go reads testlog.txt in the directory of the binary
// whether or not it asked for it, so naming that file brings `(cached)` back, with
// the same invalidation as without -exec (runTestActor.Act and runCache.saveOutput in
// cmd/go/internal/test/test.go, Go 1.10 to 1.26; a test holds it against the real go).
func (GoTest) Place(r Request) Placement {
	if !isTestBinary(r.Argv) {
		return Placement{}
	}
	p := Placement{Worker: true, Label: r.Label}
	if p.Label == "" {
		p.Label = importPath(r)
	}
	if cacheable(r.Argv[1:]) {
		p.ExtraArgs = []string{"-test.testlogfile=" + filepath.Join(filepath.Dir(r.Argv[0]), "testlog.txt")}
	}
	return p
}

// isTestBinary tells `go test` from `go run`. cmd/go calls the one NAME.test and gives
// it flags of its own first, at least -test.paniconexit0 (since Go 1.16). A program of
// `go run` may come from a directory called NAME.test, but it has its arguments from
// the user.
func isTestBinary(argv []string) bool {
	return len(argv) > 1 && strings.HasSuffix(argv[0], ".test") && strings.HasPrefix(argv[1], "-test.")
}

// uncacheable are flags with which no release of cmd/go caches a result. Passing
// -test.testlogfile beside them would only cost the time to write it, and a fuzz
// test's own workers would all write to the one file.
var uncacheable = []string{
	"-test.bench", "-test.blockprofile", "-test.count", "-test.cpuprofile", "-test.fuzz",
	"-test.memprofile", "-test.mutexprofile", "-test.shuffle", "-test.trace",
	"-test.testlogfile", // it is there already
}

func cacheable(args []string) bool {
	return !slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains(uncacheable, name)
	})
}

// importPath is the import path of the package that a test binary tests, from the
// build information in the binary: it is exact for modules, workspaces, replaced and
// vendored packages, GOPATH and the standard library alike, where the working
// directory would need `go list` to tell. `go test FILE.go` tests the package
// "command-line-arguments", as in go test's own output.
func importPath(r Request) string {
	file := r.Argv[0]
	if !filepath.IsAbs(file) {
		file = filepath.Join(r.Dir, file)
	}
	info, err := buildinfo.ReadFile(file)
	if err == nil {
		if path, ok := strings.CutSuffix(info.Path, ".test"); ok && path != "" {
			return path
		}
	}
	return strings.TrimSuffix(filepath.Base(file), ".test")
}
