package outside

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandrun/sandrun/internal/e2e"
)

// The tests of a real module give the same results bare and under sandrun, and go
// test's cache works under sandrun.
func TestRealModule(t *testing.T) {
	const module = "github.com/urfave/cli/v3"
	dir := copyModule(t, module)
	t.Setenv("TMPDIR", t.TempDir()) // its tests leave files behind

	bare := exec.Command("go", "test", "-count=1", "-json", "./...")
	bare.Dir = dir
	out, err := bare.CombinedOutput()
	if err != nil {
		t.Fatalf("bare: %v\n%s", err, out)
	}
	want := results(t, out)
	if len(want) < 400 || want[module+" TestCommandFlagParsing"] != "pass" {
		t.Fatalf("%d results, TestCommandFlagParsing %q: is this the module that was meant?", len(want), want[module+" TestCommandFlagParsing"])
	}

	capped := func() e2e.Run {
		p := e2e.New(t, []string{"--kernel", "guest", "--profile", "t3.medium"}, "go", "test", "-json", "./...")
		p.Cmd.Dir = dir
		p.Start()
		return p.Wait()
	}
	first := capped()
	first.WantCode(t, 0)
	if got := results(t, []byte(first.Stdout)); !maps.Equal(got, want) {
		t.Errorf("other results than bare:\n%s", difference(got, want))
	}
	first.Want(t, module, "passed")
	second := capped()
	second.WantCode(t, 0)
	if !strings.Contains(second.Stdout, "(cached)") || len(second.Record.Workers) != 0 {
		t.Errorf("second run: %d workers, want none; output:\n%.2000s", len(second.Record.Workers), second.Stdout)
	}
	if got := results(t, []byte(second.Stdout)); !maps.Equal(got, want) {
		t.Errorf("from the cache:\n%s", difference(got, want))
	}
}

// copyModule copies a module of go.mod out of the module cache, which is
// read-only, and fetches what its tests import.
func copyModule(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", module, err)
	}
	dir := filepath.Join(t.TempDir(), "module")
	if err := os.CopyFS(dir, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	get := exec.Command("go", "mod", "download")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	return dir
}

// results maps "package test" and "package" to pass, fail or skip.
func results(t *testing.T, output []byte) map[string]string {
	t.Helper()
	set := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct{ Action, Package, Test string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		switch event.Action {
		case "pass", "fail", "skip":
			set[strings.TrimSpace(event.Package+" "+event.Test)] = event.Action
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return set
}

func difference(got, want map[string]string) string {
	var b strings.Builder
	for name := range want {
		if got[name] != want[name] {
			b.WriteString(name + ": " + got[name] + ", want " + want[name] + "\n")
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			b.WriteString(name + ": " + got[name] + ", not run bare\n")
		}
	}
	return b.String()
}

// The demo: good packages pass, each bad one is ended alone, and named.
func TestDemo(t *testing.T) {
	root, err := e2e.Root()
	if err != nil {
		t.Fatal(err)
	}
	p := e2e.New(t, []string{"--kernel", "guest", "--profile", "t3.small"}, "go", "test", "-count=1", "-json", "./...")
	p.Cmd.Dir = filepath.Join(root, "testdata", "demo")
	p.Start()
	r := p.Wait()
	r.WantCode(t, 1)
	r.Want(t,
		"example/parser", "passed", "example/cache", "passed", "example/queue", "passed", "example/httpx", "passed",
		"example/table", "passed", "example/wire", "passed", "example/graph", "passed", "example/store", "passed",
		"example/limit", "passed", "example/thumb", "passed",
		"example/hog", "memory", "example/leak", "memory", "example/daemon", "memory", "example/tmpfs", "memory",
		"example/memfd", "memory", "example/swapper", "memory", "example/bomb", "pids",
	)
	for label, test := range map[string]string{
		"example/hog": "TestLoadModel", "example/leak": "TestManySessions", "example/daemon": "TestIndexServer",
		"example/tmpfs": "TestSpool", "example/memfd": "TestFrameBuffer", "example/swapper": "TestSimulation",
	} {
		if w := r.Worker(t, label); w.Test != test {
			t.Errorf("%s was killed in %q, want %s", label, w.Test, test)
		}
		if !strings.Contains(r.Stderr, test) {
			t.Errorf("the summary does not name %s", test)
		}
	}
	if t.Failed() {
		t.Log(r.Stderr)
	}
}

// Where no cap holds, the bad tests of the demo skip themselves: somebody may run
// them bare. (Under a cap of less than 4 GiB they would do their work, and this
// test would be ended with them.)
func TestDemoIsSafeBare(t *testing.T) {
	root, err := e2e.Root()
	if err != nil {
		t.Fatal(err)
	}
	bare := exec.Command("go", "test", "-count=1", "-json", "./...")
	bare.Dir = filepath.Join(root, "testdata", "demo")
	out, err := bare.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := results(t, out)
	for _, test := range []string{
		"hog TestLoadModel", "leak TestManySessions", "daemon TestIndexServer", "bomb TestConvertAll",
		"tmpfs TestSpool", "memfd TestFrameBuffer", "swapper TestSimulation",
	} {
		if got["example/"+test] != "skip" {
			t.Errorf("%s: %s, want skip", test, got["example/"+test])
		}
	}
}
