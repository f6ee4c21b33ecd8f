package harness

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sandrun/sandrun/report"
)

var (
	update = flag.Bool("update", false, "write the golden files")
	record = flag.Bool("record", false, "run the real go test again and write what it prints to testdata")
)

const recordings = "testdata/gotest"

// TestRecordGoTest writes the recordings that the other tests read: the real output of
// the go command on PATH, for the module in testdata/gotest/example:
//
//	go test ./harness -run TestRecordGoTest -record && go test ./harness -update
func TestRecordGoTest(t *testing.T) {
	if !*record {
		t.Skip("only with -record")
	}
	modes := []struct{ name, args string }{
		{"plain", "./..."},
		{"verbose", "-v ./..."},
		{"verbose-streamed", "-v -p=1 ./..."},
		{"verbose-test2json", "-v=test2json ./..."},
		{"json", "-json ./..."},
		{"race-json", "-race -json ./race ./hog"},
		{"cover", "-cover ./good ./fails ./nofiles"},
		{"cached", "./good ./fails"},
	}
	dir := filepath.Join(t.TempDir(), "example")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(recordings, "example"))); err != nil {
		t.Fatal(err)
	}
	for _, mode := range modes {
		cmd := exec.Command("go", append([]string{"test", "-parallel=4", "-timeout=2s"}, strings.Fields(mode.args)...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOENV=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		out = bytes.ReplaceAll(out, []byte(dir), []byte("/src"))
		if err := os.WriteFile(filepath.Join(recordings, mode.name+".txt"), out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(recordings, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s (%v)", recordings, err)
	}
	out := map[string][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".txt")] = data
	}
	return out
}

// describe lists what a tracker knows, a line for each run of each package.
func describe(tracker *GoTestTracker) string {
	var pkgs []string
	for pkg := range tracker.runs {
		pkgs = append(pkgs, pkg)
	}
	slices.Sort(pkgs)
	var b strings.Builder
	for _, pkg := range pkgs {
		for _, r := range tracker.Runs(pkg) {
			fmt.Fprintf(&b, "%-17s ok=%-5v ran=%-5v cached=%-5v %8v ended=%q cut=%q\n",
				pkg, r.OK, r.Ran, r.Cached, r.Elapsed.Round(time.Millisecond), r.Ended, r.Cut)
		}
	}
	if rest := tracker.block.running(); len(rest) > 0 {
		fmt.Fprintf(&b, "still running: %q\n", rest)
	}
	return b.String()
}

func track(chunks ...[]byte) *GoTestTracker {
	tracker := NewGoTestTracker()
	for _, c := range chunks {
		feed(tracker, c)
	}
	return tracker
}

// feed writes as io.Copy does, which gives up on an error or a short write.
func feed(tracker *GoTestTracker, data []byte) {
	if n, err := tracker.Write(data); n != len(data) || err != nil {
		panic(fmt.Sprintf("Write of %d bytes: %d, %v", len(data), n, err))
	}
}

func TestGoTestTrackerGolden(t *testing.T) {
	for name, data := range recorded(t) {
		t.Run(name, func(t *testing.T) {
			got := describe(track(data))
			golden := filepath.Join(recordings, name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
			var bytewise []([]byte)
			for i := range data {
				bytewise = append(bytewise, data[i:i+1])
			}
			if diff := gocmp.Diff(got, describe(track(bytewise...))); diff != "" {
				t.Errorf("written byte by byte it differs:\n%s", diff)
			}
			crlf := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")) // through a terminal
			if diff := gocmp.Diff(got, describe(track(crlf))); diff != "" {
				t.Errorf("with CRLF it differs:\n%s", diff)
			}
		})
	}
}

// TestGoTestTrackerLive reads a recording up to the moment of a kill.
func TestGoTestTrackerLive(t *testing.T) {
	data := recorded(t)["json"]
	before, _, ok := bytes.Cut(data, []byte(`loading, without a newline`))
	if !ok {
		t.Fatal("the recording lacks the kill")
	}
	tracker := track(before)
	if diff := gocmp.Diff([]string{"TestLoadModel/large"}, tracker.Running("example/hog")); diff != "" {
		t.Errorf("running (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff([]string{"TestLoadModel/large"}, tracker.Cut("example/hog", 0)); diff != "" {
		t.Errorf("cut by the end of the output (-want +got):\n%s", diff)
	}
	if got := tracker.Running("example/good"); got != nil {
		t.Errorf("example/good has ended, but %q run", got)
	}
	feed(tracker, data[len(before):])
	if got := tracker.Running("example/hog"); got != nil {
		t.Errorf("example/hog has ended, but %q run", got)
	}
}

func TestGoTestTrackerLines(t *testing.T) {
	const fail = "signal: killed\nFAIL\tp\t0.1s\n"
	for _, test := range []struct {
		name, in string
		cut      []string
	}{
		{"one", "=== RUN   TestA\n" + fail, []string{"TestA"}},
		{"after one that passed", "=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestB\n" + fail, []string{"TestB"}},
		{"no newline before the end of a test", "=== RUN   TestA\nxyz--- PASS: TestA (0.00s)\n=== RUN   TestB\n" + fail, []string{"TestB"}},
		{"no newline before the begin of a test", "=== RUN   TestA\nxyz=== RUN   TestA/sub\n" + fail, []string{"TestA/sub"}},
		{"a very long line before the end of a test", "=== RUN   TestA\n" + strings.Repeat("x", 1<<20) + "--- PASS: TestA (0.00s)\n" + fail, nil},
		{"between tests", "=== RUN   TestA\n--- PASS: TestA (0.00s)\n" + fail, nil},
		{"sequential subtests", "=== RUN   TestA\n=== RUN   TestA/x\n=== RUN   TestA/y\n" + fail, []string{"TestA/y"}},
		{"subtest with a slash", "=== RUN   TestA\n=== RUN   TestA/x\n=== RUN   TestA/y/z\n=== RUN   TestA/w\n" + fail, []string{"TestA/w"}},
		{"nested subtests", "=== RUN   TestA\n=== RUN   TestA/x\n=== RUN   TestA/x/y\n" + fail, []string{"TestA/x/y"}},
		{"parallel tests, one still paused", "=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== PAUSE TestB\n=== RUN   TestC\n=== PAUSE TestC\n=== CONT  TestA\n=== CONT  TestC\n" + fail, []string{"TestA", "TestC"}},
		{"parallel subtests, of which the ends are not told", "=== RUN   TestA\n=== RUN   TestA/x\n=== PAUSE TestA/x\n=== RUN   TestA/y\n=== PAUSE TestA/y\n=== CONT  TestA/x\n=== CONT  TestA/y\n" + fail, []string{"TestA"}},
		{"timed out, plain", "panic: test timed out after 1s\n\trunning tests:\n\t\tTestA (1s)\n\t\tTestA/x (1s)\n\t\tTestB (0s)\n\ngoroutine 1:\n" + fail, []string{"TestA/x", "TestB"}},
		{"words like markers", "=== RUN   TestA\n=== RUN   testing things\n    x.go:1: --- PASS: TestA (later)\n=== NAME  TestA\n" + fail, []string{"TestA"}},
		{"json", `{"Action":"start","Package":"p"}` + "\n" + `{"Action":"run","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestA","Output":"signal: killed\n"}` + "\n" + `{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}` + "\n" + `{"Action":"fail","Package":"p","Elapsed":0.1}` + "\n", []string{"TestA"}},
		{"json behind other output", `{"Action":"start","Package":"p"}` + "\n" + `downloading {"Action":"run","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestA","Output":"signal: killed\n"}` + "\n" + `{"Action":"fail","Package":"p","Elapsed":0.1}` + "\n", []string{"TestA"}},
		{"json between packages", `{"Action":"run","Package":"q","Test":"TestA"}` + "\n" + `{"Action":"run","Package":"p","Test":"TestB"}` + "\n" + `{"Action":"pass","Package":"q","Test":"TestA"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestB","Output":"signal: killed\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n", []string{"TestB"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tracker := track([]byte(test.in))
			if diff := gocmp.Diff(test.cut, tracker.Cut("p", 0)); diff != "" {
				t.Errorf("cut (-want +got):\n%s", diff)
			}
			runs := tracker.Runs("p")
			if len(runs) != 1 || runs[0].OK || !runs[0].Ran || runs[0].Ended != "signal: killed" {
				t.Errorf("runs = %+v, want one that was killed", runs)
			}
		})
	}
}

// TestGoTestTrackerTwice runs the same package twice in one command: the second time
// from the cache, the third time killed.
func TestGoTestTrackerTwice(t *testing.T) {
	tracker := track([]byte("=== RUN   TestA\nFAIL\tp\t0.1s\nok  \tp\t(cached)\n=== RUN   TestB\nFAIL\tp\t0.1s\n"))
	for nth, want := range [][]string{{"TestA"}, {"TestB"}, nil} {
		if diff := gocmp.Diff(want, tracker.Cut("p", nth)); diff != "" {
			t.Errorf("binary %d (-want +got):\n%s", nth, diff)
		}
	}
	workers := []report.Worker{
		{Label: "p", Verdict: report.Memory},
		{Label: "q", Verdict: report.Memory},
		{Label: "p", Verdict: report.Signaled},
		{Label: "p", Verdict: report.Memory},
	}
	NameTests(tracker, workers)
	for i, want := range []string{"TestA", "", "TestB", ""} {
		if workers[i].Test != want {
			t.Errorf("worker %d was in %q, want %q", i, workers[i].Test, want)
		}
	}
}

func TestNameTests(t *testing.T) {
	in := "=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== PAUSE TestB\n=== RUN   TestC\n=== PAUSE TestC\n=== RUN   TestD\n=== PAUSE TestD\n=== RUN   TestE\n=== PAUSE TestE\n" +
		"=== CONT  TestA\n=== CONT  TestC\n=== CONT  TestB\n=== CONT  TestD\n=== CONT  TestE\nFAIL\tp\t0.1s\n"
	workers := []report.Worker{{Label: "p", Verdict: report.Memory}}
	NameTests(track([]byte(in)), workers)
	if got, want := workers[0].Test, "TestA, TestB, TestC and 2 more"; got != want {
		t.Errorf("Test = %q, want %q", got, want)
	}
	failed := []report.Worker{{Label: "p", Verdict: report.Failed}}
	NameTests(track([]byte(in)), failed)
	if failed[0].Test != "" {
		t.Errorf("a worker that failed by itself was in %q; go test has told which failed", failed[0].Test)
	}
}

func TestParseResult(t *testing.T) {
	for _, test := range []struct {
		in   string
		want GoTestRun
		ok   bool
	}{
		{"ok  \texample/a\t0.012s", GoTestRun{Package: "example/a", OK: true, Ran: true, Elapsed: 12 * time.Millisecond}, true},
		{"ok  \texample/a\t(cached)", GoTestRun{Package: "example/a", OK: true, Cached: true}, true},
		{"ok  \texample/a\t(cached)\tcoverage: 85.0% of statements [no tests to run]", GoTestRun{Package: "example/a", OK: true, Cached: true}, true},
		{"ok  \texample/a\t0.100s [no tests to run]", GoTestRun{Package: "example/a", OK: true, Ran: true, Elapsed: 100 * time.Millisecond}, true},
		{"FAIL\texample/a\t61.5s", GoTestRun{Package: "example/a", Ran: true, Elapsed: 61500 * time.Millisecond}, true},
		{"FAIL\texample/a [build failed]", GoTestRun{Package: "example/a"}, true},
		{"FAIL\texample/a [setup failed]", GoTestRun{Package: "example/a"}, true},
		{"?   \texample/a\t[no test files]", GoTestRun{Package: "example/a", OK: true}, true},
		{"\texample/a\t\tcoverage: 0.0% of statements", GoTestRun{Package: "example/a", OK: true}, true},
		{"FAIL", GoTestRun{}, false},
		{"FAIL\texample/a", GoTestRun{}, false},
		{"FAIL\texample/a\t1.2.3s", GoTestRun{}, false},
		{"ok, whatever", GoTestRun{}, false},
		{" ok  \texample/a\t0.012s", GoTestRun{}, false},
		{"", GoTestRun{}, false},
	} {
		got, ok := parseResult([]byte(test.in))
		if ok != test.ok || !gocmp.Equal(got, test.want) {
			t.Errorf("parseResult(%q) = %+v, %v, want %+v, %v", test.in, got, ok, test.want, test.ok)
		}
	}
}

// TestGoTestTrackerBounded feeds it what would grow without end.
func TestGoTestTrackerBounded(t *testing.T) {
	tracker := NewGoTestTracker()
	chunk := bytes.Repeat([]byte("x"), 10_000)
	for range 100 {
		feed(tracker, chunk)
	}
	if len(tracker.line) > maxOutputLine {
		t.Errorf("an endless line takes %d bytes", len(tracker.line))
	}
	feed(tracker, []byte("\n"))
	for i := range 2 * maxTests {
		feed(tracker, fmt.Appendf(nil, "=== RUN   Test%d\n=== PAUSE Test%d\n", i, i))
	}
	feed(tracker, []byte("=== RUN   Test"+strings.Repeat("y", 2*maxTestName)+"\n"))
	if n := len(tracker.block.tests); n > maxTests {
		t.Errorf("endless tests take %d entries", n)
	}
}

func FuzzGoTestTracker(f *testing.F) {
	for _, data := range recorded(f) {
		f.Add(data[:min(len(data), 4000)], uint(7))
	}
	f.Add([]byte("=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n{\"Action\":\"pass\",\"Package\":\"p\"}\nok  \tp\t1s\n"), uint(3))
	f.Fuzz(func(t *testing.T, data []byte, at uint) {
		whole := track(data)
		cut := int(at % uint(len(data)+1))
		if diff := gocmp.Diff(describe(whole), describe(track(data[:cut], data[cut:]))); diff != "" {
			t.Errorf("cut at %d it differs:\n%s", cut, diff)
		}
		for pkg, runs := range whole.runs {
			for _, r := range runs {
				if r.Package != pkg || r.Cached && r.Ran || r.OK && r.Ended != "" {
					t.Errorf("%q: %+v contradicts itself", pkg, r)
				}
			}
		}
	})
}

func BenchmarkGoTestTracker(b *testing.B) {
	inputs := recorded(b)
	inputs["log"] = bytes.Repeat([]byte("2026-01-01T00:00:00Z INFO some text that a test prints, of usual length\n"), 1000)
	for _, name := range []string{"plain", "verbose", "json", "log"} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(inputs[name])))
			for b.Loop() {
				track(inputs[name])
			}
		})
	}
}
