package inside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/e2e"
)

// left names what a sandrun that is gone has left: cgroups, processes, files.
func left(t *testing.T, tmp string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "sandrun-") {
			found = append(found, "cgroup "+path)
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Every process of a run has the marks of e2e.New in its environment.
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range environs {
		b, err := os.ReadFile(file)
		if err == nil && bytes.Contains(b, []byte("\x00SANDRUN=")) {
			cmdline, _ := os.ReadFile(filepath.Dir(file) + "/cmdline")
			found = append(found, fmt.Sprintf("process %s: %q", filepath.Base(filepath.Dir(file)), cmdline))
		}
	}
	const marker = "guest" // a file that makes this a guest of ours
	for _, dir := range []string{"/run/sandrun", tmp} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() == marker {
				continue
			}
			found = append(found, "file "+filepath.Join(dir, e.Name()))
		}
	}
	return found
}

// gc runs `sandrun gc` and returns what it printed.
func gc(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), e2e.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, e2e.Sandrun(t), "gc").CombinedOutput()
	if err != nil {
		t.Errorf("sandrun gc: %v\n%s", err, out)
	}
	return string(out)
}

func wantNothingLeft(t *testing.T, tmp string) {
	t.Helper()
	if found := left(t, tmp); len(found) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
	}
}

// sandrun is killed at a random moment of its life, a hundred times. Whatever it
// has left, gc clears.
func TestKilledSandrunLeavesNothing(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	tmp := t.TempDir()
	cleared := 0
	for round := range rounds {
		p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`
			w a anon 30M &
			w b setsid hold 1m anon 10M &
			w c deaf forks 10 1m &
			wait`)
		p.Cmd.Env = append(p.Cmd.Env, "TMPDIR="+tmp)
		p.Cmd.Stdout, p.Cmd.Stderr = nil, nil // pipes would be held open by what is left
		p.Start()
		wait := time.Duration(rand.Int64N(int64(400 * time.Millisecond)))
		time.Sleep(wait)
		if err := p.Cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.Cmd.Wait()
		// Most rounds leave it to the next sandrun to clear away.
		if round%10 != 9 {
			continue
		}
		cleared += strings.Count(gc(t), "cleared run ")
		if found := left(t, tmp); len(found) > 0 {
			t.Fatalf("round %d, killed after %v; left behind:\n%s", round, wait, strings.Join(found, "\n"))
		}
	}
	if cleared == 0 {
		t.Error("gc never had anything to clear: the test kills too early or too late")
	}
	if out := gc(t); out != "nothing to clear\n" {
		t.Errorf("gc after gc: %q", out)
	}
}

// Eight runs side by side, with gc beside them, do not notice each other.
func TestSideBySide(t *testing.T) {
	tmp := t.TempDir()
	flags := []string{
		"--profile", "t3.small", "--memory", "150M", "--swap", "0", "-n", "1",
		"--worker-memory", "48M", "--worker-swap", "0", "--worker-pids", "32",
	}
	var runs [8]e2e.Run
	processes := make([]*e2e.Process, len(runs))
	for i := range runs {
		processes[i] = e2e.New(t, flags, "sh", "-c", e2e.Prelude+`
			w good hold 500ms anon 20M
			w hog  anon 100M
			w last say done exit 3`)
		processes[i].Cmd.Env = append(processes[i].Cmd.Env, "TMPDIR="+tmp)
		processes[i].Start()
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				if out := gc(t); out != "nothing to clear\n" {
					t.Errorf("gc beside live runs: %s", out)
				}
			}
		}
	})
	for i, p := range processes {
		runs[i] = p.Wait()
	}
	close(stop)
	beside.Wait()
	ids := map[string]bool{}
	for _, r := range runs {
		r.Want(t, "good", "passed", "hog", "memory", "last", "failed")
		r.WantCode(t, 3)
		if r.Stdout != "done\n" {
			t.Errorf("stdout %q", r.Stdout)
		}
		ids[r.Record.ID] = true
	}
	if len(ids) != len(runs) {
		t.Errorf("%d ids for %d runs", len(ids), len(runs))
	}
	wantNothingLeft(t, tmp)
}

// Two thousand workers in one run: no descriptor and no cgroup stays from any.
func TestChurn(t *testing.T) {
	workers := 2000
	if testing.Short() {
		workers = 100
	}
	tmp := t.TempDir()
	p := e2e.New(t, small, "sh", "-c", `
		count() { ls /proc/$PPID/fd | wc -l; }
		"$SANDRUN" worker -- /bin/true
		count
		i=1
		while [ $i -lt `+strconv.Itoa(workers)+` ]; do "$SANDRUN" worker -- /bin/true || exit; i=$((i+1)); done
		count
		ls -d /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/../worker-* | wc -l`)
	p.Cmd.Env = append(p.Cmd.Env, "TMPDIR="+tmp)
	p.Start()
	r := p.Wait()
	r.WantCode(t, 0)
	if n := len(r.Record.Workers); n != workers {
		t.Errorf("%d workers, want %d", n, workers)
	}
	for _, w := range r.Record.Workers {
		if w.Verdict != "passed" {
			t.Fatalf("%s: %s %s", w.ID, w.Verdict, w.Evidence.Why)
		}
	}
	var before, after, leaves int
	if _, err := fmt.Sscan(r.Stdout, &before, &after, &leaves); err != nil {
		t.Fatalf("%q: %v", r.Stdout, err)
	}
	// A worker that is being cleared away, and the leaf that waits for the next.
	if after > before+6 || leaves > 3 {
		t.Errorf("sandrun had %d descriptors after the first worker and %d after the last; %d leaves", before, after, leaves)
	}
	wantNothingLeft(t, tmp)
	t.Logf("%d workers in %v", workers, time.Duration(r.Record.Wall))
}
