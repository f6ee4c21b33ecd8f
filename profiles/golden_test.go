package profiles

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenHost is the machine that the golden files were written on.
var goldenHost = Host{CPUs: 8, Memory: 32 * GiB, Swap: 8 * GiB}

const goldenFile = `profiles:
  ci:
    title: our builder
    extends: t3.large
    headroom: {database: 1GiB, operating system: 192MiB}
    workers: 2
    worker: {memory: 2GiB}
  wide:
    extends: host
    headroom: {everything: 20GiB, more: 2GiB}
`

func TestGolden(t *testing.T) {
	s, err := parseSet("/srv/app/sandrun.yaml", []byte(goldenFile))
	if err != nil {
		t.Fatal(err)
	}
	explain := func(name string, o Overrides, as func(*bytes.Buffer, *Machine) error) func(*bytes.Buffer) error {
		return func(b *bytes.Buffer) error {
			m, err := s.Resolve(name, o, goldenHost)
			if err != nil {
				return err
			}
			return as(b, &m)
		}
	}
	text := func(b *bytes.Buffer, m *Machine) error { return WriteExplanation(b, m) }
	asJSON := func(b *bytes.Buffer, m *Machine) error { return WriteExplanationJSON(b, m) }
	for name, write := range map[string]func(*bytes.Buffer) error{
		"list.txt":                func(b *bytes.Buffer) error { return WriteList(b, s, goldenHost) },
		"list.json":               func(b *bytes.Buffer) error { return WriteListJSON(b, s, goldenHost) },
		"t3.small.txt":            explain("t3.small", Overrides{}, text),
		"t3.small.json":           explain("t3.small", Overrides{}, asJSON),
		"t3.medium-n2.txt":        explain("t3.medium", Overrides{Workers: "2"}, text),
		"t3.2xlarge.txt":          explain("t3.2xlarge", Overrides{}, text),
		"github-public-flags.txt": explain("github-public", Overrides{Memory: "50%", Swap: "1G", Pids: "4000", CPUs: "3", Workers: "3", WorkerMemory: "2G", WorkerSwap: "0", WorkerPids: "400"}, text),
		"workstation-16c.txt":     explain("workstation-16c", Overrides{}, text),
		"workstation-16c.json":    explain("workstation-16c", Overrides{}, asJSON),
		"workstation-16c-n8.txt":  explain("workstation-16c", Overrides{Workers: "8"}, text),
		"ci.txt":                  explain("ci", Overrides{}, text),
		"host.txt":                explain("host", Overrides{}, text),
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(name) == ".json" && !json.Valid(b.Bytes()) {
				t.Error("not JSON")
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("%s (write it anew with -update; -want +got):\n%s", file, d)
			}
		})
	}
}

// A writer's error is returned, wherever it occurs.
func TestWriteErrors(t *testing.T) {
	m := resolve(t, "workstation-16c", Overrides{})
	for n := range 5 {
		if err := WriteExplanation(&fullWriter{n * 100}, &m); !errors.Is(err, errFull) {
			t.Errorf("WriteExplanation after %d bytes: %v", n*100, err)
		}
		if err := WriteList(&fullWriter{n * 100}, catalogue(t), testHost); !errors.Is(err, errFull) {
			t.Errorf("WriteList after %d bytes: %v", n*100, err)
		}
	}
	if err := WriteListJSON(&fullWriter{}, catalogue(t), testHost); !errors.Is(err, errFull) {
		t.Errorf("WriteListJSON: %v", err)
	}
}

var errFull = errors.New("full")

type fullWriter struct{ left int }

func (w *fullWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return 0, errFull
	}
	w.left -= len(b)
	return len(b), nil
}
