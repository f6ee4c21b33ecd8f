package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// A module is one on disk, in which the real go command runs with the environment
// that GoTest.Env gives and this test binary in place of the shim.
type module struct {
	t    *testing.T
	dir  string
	env  []string
	file string // of what was placed
}

func newModule(t *testing.T, files map[string]string) *module {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the go command")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel() // most of the time is the linker's
	tmp := t.TempDir()
	m := &module{t: t, dir: filepath.Join(tmp, "src"), file: filepath.Join(tmp, "placed")}
	for name, text := range files {
		m.write(name, text)
	}
	links := filepath.Join(tmp, "links")
	if err := Links(links, self); err != nil {
		t.Fatal(err)
	}
	environ := append(os.Environ(), "GOENV=off", "GOFLAGS=-mod=mod", "GOWORK=off", "GO111MODULE=", "GOTOOLCHAIN=local", "GOPROXY=off", placedFile+"="+m.file)
	env, notes, err := GoTest{Workers: 2}.Env(links, environ)
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	m.env = env
	return m
}

func (m *module) write(name, text string) {
	m.t.Helper()
	file := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	// cmd/go caches no result that rests on a file younger than two seconds.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		m.t.Fatal(err)
	}
}

// run runs go with these arguments, in dir below the module, and returns what it
// printed, whether it said 0, and what came through the shim.
func (m *module) run(dir string, args ...string) (out string, ok bool, through []placed) {
	m.t.Helper()
	if err := os.Remove(m.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = filepath.Join(m.dir, dir), m.env
	data, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	lines, readErr := os.ReadFile(m.file)
	if readErr != nil && !errors.Is(readErr, os.ErrNotExist) {
		m.t.Fatal(readErr)
	}
	for line := range bytes.Lines(lines) {
		var p placed
		if err := json.Unmarshal(line, &p); err != nil {
			m.t.Fatal(err)
		}
		through = append(through, p)
	}
	return string(data), err == nil, through
}

const goMod = "module example.com/m\n\ngo 1.26\n"

// TestGoTestCache is the guard for what Place does with -test.testlogfile, which rests
// on cmd/go's internals: a passed test is cached, with and without a coverage profile;
// what it looked at invalidates it; a killed one is not cached.
func TestGoTestCache(t *testing.T) {
	m := newModule(t, map[string]string{
		"go.mod":  goMod,
		"input":   "one",
		"m.go":    "package m\n\nfunc F() {}\n",
		"m2/m.go": "package m2\n",
		"m_test.go": `package m

import (
	"os"
	"testing"
)

func TestInputs(t *testing.T) {
	F()
	os.Getenv("SANDRUN_TEST_INPUT")
	if _, err := os.ReadFile("input"); err != nil {
		t.Fatal(err)
	}
}
`,
		"dies/dies_test.go": `package dies

import (
	"os"
	"syscall"
	"testing"
)

func TestDies(t *testing.T) {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
`,
	})
	step := func(name string, wantCached bool, args ...string) {
		t.Helper()
		out, ok, through := m.run(".", args...)
		if cached := strings.Contains(out, "(cached)"); !ok || cached != wantCached || len(through) != map[bool]int{false: 1}[cached] {
			t.Errorf("%s: cached %v, want %v; %d binaries came through the shim; go said %v:\n%s", name, cached, wantCached, len(through), ok, out)
		}
	}
	step("first", false, "test", ".")
	step("second", true, "test", ".")
	step("-json, cached under the other -v", false, "test", "-json", ".")
	step("-json again", true, "test", "-json", ".")
	step("-count=1", false, "test", "-count=1", ".")
	step("after -count=1", true, "test", ".")

	m.env = setenv(m.env, "SANDRUN_TEST_INPUT", "x")
	step("a variable that it reads has changed", false, "test", ".")
	step("and again", true, "test", ".")
	m.env = setenv(m.env, "SANDRUN_TEST_UNREAD", "x")
	step("a variable that it does not read has changed", true, "test", ".")
	m.write("input", "other")
	step("a file that it reads has changed", false, "test", ".")

	profile := filepath.Join(t.TempDir(), "cover")
	step("coverage", false, "test", "-coverprofile="+profile, ".")
	first, err := os.ReadFile(profile)
	if err != nil || !bytes.Contains(first, []byte("example.com/m/m.go:3")) {
		t.Errorf("the coverage profile holds %q, %v", first, err)
	}
	step("coverage again", true, "test", "-coverprofile="+profile, ".")
	if again, err := os.ReadFile(profile); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the cached coverage profile holds %q, %v, want %q", again, err, first)
	}

	for range 2 {
		out, ok, through := m.run(".", "test", "./dies")
		if ok || !strings.Contains(out, "signal: killed") || len(through) != 1 {
			t.Errorf("a killed test: %d came through the shim; go said %v:\n%s", len(through), ok, out)
		}
	}
}

// TestGoTestLabels names packages of every kind by what cmd/go itself calls them.
func TestGoTestLabels(t *testing.T) {
	const test = "import \"testing\"\n\nfunc Test(t *testing.T) {}\n"
	m := newModule(t, map[string]string{
		"go.mod":           goMod + "\nrequire example.org/wanted v1.0.0\n\nreplace example.org/wanted => ./fork\n",
		"a/v2/a_test.go":   "package a\n\n" + test,
		"b/b_test.go":      "package b_test\n\n" + test,
		"main.test/m.go":   "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() { fmt.Println(os.Args[1:]) }\n",
		"use/use.go":       "package use\n\nimport _ \"example.org/wanted/p\"\n",
		"fork/go.mod":      "module example.net/fork\n\ngo 1.26\n",
		"fork/p/p.go":      "package p\n",
		"fork/p/p_test.go": "package p\n\n" + test,
	})
	for _, run := range []struct {
		dir  string
		args []string
		want []string
	}{
		{".", []string{"test", "./a/...", "./b"}, []string{"example.com/m/a/v2", "example.com/m/b"}},
		{"b", []string{"test"}, []string{"example.com/m/b"}},
		{"b", []string{"test", "b_test.go"}, []string{"command-line-arguments"}},
		{".", []string{"test", "example.org/wanted/p"}, []string{"example.org/wanted/p"}},
		{".", []string{"test", "-run=^$", "errors"}, []string{"errors"}},
		{"b", []string{"test", "-ldflags=-s -w", "-trimpath", "-o", os.DevNull, "."}, []string{"example.com/m/b"}},
		{"b", []string{"test", "-v", ".", "-args", "-x", "y"}, nil}, // the binary knows no -x
	} {
		out, ok, through := m.run(run.dir, run.args...)
		if run.want == nil {
			if ok || len(through) != 1 || through[0].Placement.Label != "example.com/m/b" {
				t.Errorf("go %q: %+v; go said %v:\n%s", run.args, through, ok, out)
			}
			continue
		}
		got := map[string]bool{}
		for _, p := range through {
			if !p.Placement.Worker {
				t.Errorf("go %q: %q is no worker", run.args, p.Request.Argv)
			}
			got[p.Placement.Label] = true
		}
		want := map[string]bool{}
		for _, label := range run.want {
			want[label] = true
			if !strings.Contains(out, "ok  \t"+label+"\t") {
				t.Errorf("go %q does not call it %q:\n%s", run.args, label, out)
			}
		}
		if diff := gocmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("go %q, labels (-want +got):\n%s%s", run.args, diff, out)
		}
	}

	out, ok, through := m.run(".", "run", "./main.test", "-x", "y")
	if !ok || out != "[-x y]\n" || len(through) != 1 || through[0].Placement.Worker {
		t.Errorf("go run: %+v; go said %v:\n%s", through, ok, out)
	}
}

// TestGoTestModes runs the ways of go test that start a binary differently.
func TestGoTestModes(t *testing.T) {
	m := newModule(t, map[string]string{
		"go.mod": goMod,
		"m.go":   "package m\n\nfunc F(b []byte) int { return len(b) }\n",
		"m_test.go": `package m

import "testing"

func TestF(t *testing.T) { F(nil) }

func FuzzF(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) { F(b) })
}

func BenchmarkF(b *testing.B) {
	for b.Loop() {
		F(nil)
	}
}
`,
	})
	for _, args := range []string{
		"test -fuzz=FuzzF -fuzztime=100x .",
		"test -bench=. -benchtime=10x -cpuprofile=cpu.out .",
		"test -race .",
		"test -cover -coverpkg=./... ./...",
		"test -shuffle=on -cpu=1,2 .",
		"test -list=. .",
	} {
		out, ok, through := m.run(".", strings.Fields(args)...)
		if !ok || len(through) != 1 || !through[0].Placement.Worker || !strings.Contains(out, "ok  \texample.com/m\t") {
			t.Errorf("go %s: %+v; go said %v:\n%s", args, through, ok, out)
		}
	}
}
