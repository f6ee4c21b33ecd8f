package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fields lists the JSON fields below t, a line each: "workers[].usage.swap_peak integer".
func fields(t reflect.Type, path string) []string {
	switch t {
	case reflect.TypeFor[Seconds]():
		return []string{path + " number"}
	case reflect.TypeFor[time.Time]():
		return []string{path + " string, RFC 3339"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(t.Elem(), path)
	case reflect.Slice:
		return fields(t.Elem(), path+"[]")
	case reflect.Map:
		return fields(t.Elem(), path+"{}")
	case reflect.Struct:
		var out []string
		for f := range t.Fields() {
			name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
			sub := fields(f.Type, strings.TrimPrefix(path+"."+name, "."))
			if strings.Contains(rest, "omitempty") {
				for i := range sub {
					if !strings.HasSuffix(sub[i], ", optional") {
						sub[i] += ", optional"
					}
				}
			}
			out = append(out, sub...)
		}
		return out
	case reflect.String:
		return []string{path + " string"}
	case reflect.Int, reflect.Int64:
		return []string{path + " integer"}
	case reflect.Float64:
		return []string{path + " number"}
	}
	return []string{path + " of unknown type " + t.String()}
}

// TestSchema fails when a field is gone, or has another type, while Schema is still the
// same: whoever reads the reports of last year must not be broken unawares.
func TestSchema(t *testing.T) {
	got := fields(reflect.TypeFor[Run](), "")
	golden := filepath.Join("testdata", fmt.Sprintf("schema-%d.golden", Schema))
	if *update {
		if err := os.WriteFile(golden, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for _, field := range want {
		if !slices.Contains(got, field) {
			t.Errorf("%q of %s is gone: raise Schema, or bring it back", field, golden)
		}
	}
	for _, field := range got {
		if !slices.Contains(want, field) {
			t.Errorf("%q is new: run with -update", field)
		}
		if strings.Contains(field, "unknown type") {
			t.Errorf("%s", field)
		}
	}
}

// TestDocs holds docs/json.md against the fields, in both directions.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	tables, verdicts, ok := strings.Cut(string(data), "\n## Verdicts\n")
	if !ok {
		t.Fatal("docs/json.md has no section on verdicts")
	}
	for line := range strings.Lines(tables) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			documented[name] = true
		}
	}
	for _, field := range fields(reflect.TypeFor[Run](), "") {
		name, _, _ := strings.Cut(field, " ")
		// The parts of a Usage, of Limits and of a Split are documented once.
		for _, prefix := range []string{"machine.", "main.", "workers[].usage."} {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				name = "USAGE." + rest
			}
		}
		for _, prefix := range []string{"profile.worker_limits.", "USAGE.limits."} {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				name = "LIMITS." + rest
			}
		}
		if !documented[name] {
			t.Errorf("docs/json.md lacks `%s`", name)
		}
		documented[name+" found"] = true
	}
	for name := range documented {
		if !strings.HasSuffix(name, " found") && !documented[name+" found"] {
			t.Errorf("docs/json.md describes `%s`, which does not exist", name)
		}
	}
	for _, v := range []Verdict{Passed, Failed, Signaled, Memory, Swap, Pids, Machine, Host, Timeout, Canceled, Error, Exited} {
		if !strings.Contains(verdicts, "\n| `"+string(v)+"` |") {
			t.Errorf("docs/json.md lacks the verdict `%s`", v)
		}
	}
}

func TestWriteJSONGolden(t *testing.T) {
	for name, run := range map[string]*Run{"t3small": t3small(), "empty": {Schema: Schema}} {
		var buf bytes.Buffer
		if err := WriteJSON(&buf, run); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(buf.String(), "null") {
			t.Errorf("%s holds a null, over which a reader cannot range", name)
		}
		golden := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(golden, buf.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), buf.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
		var back Run
		if err := json.Unmarshal(buf.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(run, &back, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s does not come back as it was (-want +got):\n%s", name, diff)
		}
	}
}

func TestSecondsJSON(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 1: "0.000000001", 12500 * time.Microsecond: "0.0125", 9800 * time.Millisecond: "9.8", time.Hour: "3600", -time.Second: "-1",
	} {
		data, err := json.Marshal(Seconds(d))
		if err != nil || string(data) != want {
			t.Errorf("%v is %s, %v, want %s", d, data, err, want)
		}
		var back Seconds
		if err := json.Unmarshal(data, &back); err != nil || time.Duration(back) != d {
			t.Errorf("%s comes back as %v, %v, want %v", data, time.Duration(back), err, d)
		}
	}
	var s Seconds
	for _, in := range []string{`"1s"`, "1e300", "null1", "-1e12"} {
		if err := json.Unmarshal([]byte(in), &s); err == nil {
			t.Errorf("%s is taken for %v", in, time.Duration(s))
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "report.json")
	var want bytes.Buffer
	if err := WriteJSON(&want, t3small()); err != nil {
		t.Fatal(err)
	}
	check := func(path string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, want.Bytes()) {
			t.Errorf("%s holds %d bytes, %v, want %d", path, len(data), err, want.Len())
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
		}
		if entries, err := os.ReadDir(dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".tmp") }) {
			t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}
	write := func(path string) {
		t.Helper()
		if err := CheckFile(path); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(path, t3small()); err != nil {
			t.Fatal(err)
		}
	}
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)

	write(file)
	check(file, 0o640)

	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	write(file) // replaced whole, with the mode that it had
	check(file, 0o666)

	link := filepath.Join(dir, "link.json")
	if err := os.Symlink("report.json", link); err != nil {
		t.Fatal(err)
	}
	write(link)
	check(file, 0o666)
	if target, err := os.Readlink(link); err != nil || target != "report.json" {
		t.Errorf("the link was replaced: %q, %v", target, err)
	}

	stale := filepath.Join(dir, fmt.Sprintf(".report.json.%d.tmp", os.Getpid()))
	if err := os.WriteFile(stale, []byte("half a report of a killed run"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(file)
	check(file, 0o666)
}

// TestWriteFileInPlace writes to what must not be replaced.
func TestWriteFileInPlace(t *testing.T) {
	var want bytes.Buffer
	if err := WriteJSON(&want, quiet()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()

	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []byte
	var wg sync.WaitGroup
	wg.Go(func() { got, _ = os.ReadFile(fifo) })
	if err := WriteFile(fifo, quiet()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("through a pipe came %d bytes, want %d", len(got), want.Len())
	}

	// As with --json /dev/stdout >> log: what is in the log stays, and so does the file.
	log, err := os.CreateTemp(dir, "log")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.WriteString(log, "before\n"); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/fd/%d", log.Fd())
	if err := CheckFile(path); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, quiet()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(log.Name()); err != nil || string(data) != "before\n"+want.String() {
		t.Errorf("the log holds %d bytes, %v, want %d", len(data), err, len("before\n")+want.Len())
	}
}

// A pipe that nobody reads must not hold the run for ever.
func TestWriteFileToAPipeWithoutAReader(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- WriteFile(fifo, &Run{}) }()
	select {
	case err := <-done:
		if !errors.Is(err, syscall.ENXIO) || !strings.Contains(err.Error(), fifo) {
			t.Errorf("without a reader: %v", err)
		}
	case <-time.After(readerWait + 10*time.Second):
		t.Fatal("it waits for a reader")
	}
}

func TestWriteFileRefuses(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"standard output":    "-",
		"nothing":            "",
		"a directory":        dir,
		"in no directory":    filepath.Join(dir, "missing", "report.json"),
		"below a file":       filepath.Join("json_test.go", "report.json"),
		"a link to itself":   loop,
		"an fd that is shut": "/dev/fd/999",
	} {
		if err := WriteFile(path, quiet()); err == nil {
			t.Errorf("%s: WriteFile(%q) says nothing", name, path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
		if err := CheckFile(path); err == nil && name != "an fd that is shut" {
			t.Errorf("%s: CheckFile(%q) says nothing", name, path)
		}
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "target.json"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(dangling, quiet()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "target.json")); err != nil {
		t.Errorf("a link to a file that does not exist yet is not followed: %v", err)
	}
}

// TestWriteFileAtomic reads while others write: never half a report.
func TestWriteFileAtomic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	if err := WriteFile(file, t3small()); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 200 {
			run := t3small()
			if i%2 == 0 {
				run = everything()
			}
			if err := WriteFile(file, run); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			data, err := os.ReadFile(file)
			if err != nil || !json.Valid(data) {
				t.Errorf("read %d bytes that are no report, %v", len(data), err)
				return
			}
		}
	})
	wg.Wait()
}
