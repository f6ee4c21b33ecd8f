package supervisor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
)

// One run, one worker of each kind side by side: each gets its own verdict.
func TestRunJudgesEachWorkerByItself(t *testing.T) {
	tr := newTrial(t, `
		sandrun worker --label passes -- true &
		sandrun worker --label fails -- sh -c 'exit 7' &
		sandrun worker --label hog -- $HUNGRY anon 200M &
		sandrun worker --label grandchild -- $HUNGRY setsid anon 200M &
		sandrun worker --label bomb -- $HUNGRY forks 500 30s &
		sandrun worker --label outside -- sh -c 'kill -9 $$' &
		sandrun worker --label nothing -- /no/such/program &
		wait; exit 0`)
	tr.Workers = 2 // so that admission has something to do
	got := tr.run(t)
	for label, verdict := range map[string]report.Verdict{
		"passes": report.Passed, "fails": report.Failed, "hog": report.Memory, "grandchild": report.Memory,
		"bomb": report.Pids, "outside": report.Signaled, "nothing": report.Failed,
	} {
		w := find(t, got, label)
		if w.Verdict != verdict {
			t.Errorf("%s: %s, want %s (%s; counters %v)", label, w.Verdict, verdict, w.Evidence.Why, w.Usage.Counters)
		}
	}
	if w := find(t, got, "fails"); w.Exit == nil || *w.Exit != 7 {
		t.Errorf("exit status %v, want 7", w.Exit)
	}
	if w := find(t, got, "outside"); w.Signal != "SIGKILL" {
		t.Errorf("signal %q, want SIGKILL", w.Signal)
	}
	if w := find(t, got, "nothing"); w.Exit == nil || *w.Exit != 127 {
		t.Errorf("exit status %v of a program that is not there, want 127", w.Exit)
	}
	hog := find(t, got, "hog")
	if hog.Usage.Split.Source != "kernel log" || hog.Usage.Split.Anon < 80*mib || hog.Usage.Split.Anon > 101*mib {
		t.Errorf("the kernel's own split %+v, want about the cap of 100 MiB in anon", hog.Usage.Split)
	}
	// A process that is being killed may charge a page or two above the cap.
	if hog.Usage.MemoryPeak < 95*mib || hog.Usage.MemoryPeak > 101*mib {
		t.Errorf("memory.peak %d, want the cap", hog.Usage.MemoryPeak)
	}
	if got.CommandExit != 0 || got.Exit != 1 {
		t.Errorf("the command said %d, sandrun %d: want 0 and 1, since caps killed workers", got.CommandExit, got.Exit)
	}
}

// Two workers of 60 MiB each are under their caps of 100 MiB; the machine of 100
// MiB is not large enough for both.
func TestRunMachineFull(t *testing.T) {
	tr := newTrial(t, `
		sandrun worker --label a -- $HUNGRY hold 3s anon 60M &
		sandrun worker --label b -- $HUNGRY hold 3s anon 60M &
		wait`)
	tr.machine.Memory = 100 * mib
	got := tr.run(t)
	var full []report.Worker
	for _, w := range got.Workers {
		if w.Verdict == report.Machine {
			full = append(full, w)
		}
	}
	if len(full) == 0 {
		t.Fatalf("no verdict 'machine' among %+v", got.Workers)
	}
	e := full[0].Evidence
	if e.Cgroup != "machine" || e.Value != 100*mib || len(e.Biggest) == 0 {
		t.Errorf("evidence %+v, want the machine's memory.max and who filled it", e)
	}
}

func TestRunTimeouts(t *testing.T) {
	tr := newTrial(t, `sandrun worker --label slow -- sleep 60; echo on`)
	tr.WorkerTimeout = 300 * time.Millisecond
	got := tr.run(t)
	if w := find(t, got, "slow"); w.Verdict != report.Timeout || got.Exit != 1 {
		t.Errorf("%s (%s), exit %d; want timeout and 1", w.Verdict, w.Evidence.Why, got.Exit)
	}

	tr = newTrial(t, `sandrun worker --label slow -- sleep 60; sleep 60`)
	tr.RunTimeout = 500 * time.Millisecond
	got = tr.run(t)
	if w := find(t, got, "slow"); w.Verdict != report.Timeout || got.Exit != 128+9 {
		t.Errorf("%s (%s), exit %d; want timeout and 137", w.Verdict, w.Evidence.Why, got.Exit)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "time-out of 500ms") {
		t.Errorf("notes %q, want one on the time-out", got.Notes)
	}
}

// What the command leaves running when it ends has nobody to report to.
func TestRunEndsWithItsCommand(t *testing.T) {
	start := time.Now()
	got := run(t, `
		ready=$(mktemp -u)
		setsid sleep 1000 &
		sandrun worker --label orphan -- sh -c "touch $ready; exec sleep 1000" &
		until [ -e $ready ]; do sleep 0.02; done
		rm $ready
		exit 3`)
	if got.Exit != 3 {
		t.Errorf("exit %d, want the command's 3", got.Exit)
	}
	if w := find(t, got, "orphan"); w.Verdict != report.Canceled {
		t.Errorf("%s (%s), want canceled", w.Verdict, w.Evidence.Why)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

// A worker that starts workers of its own keeps them in its leaf.
func TestRunNestedWorkerStaysInItsLeaf(t *testing.T) {
	got := run(t, `sandrun worker --label outer -- sandrun worker --label inner -- sandrun worker -- grep -q worker-0001 /proc/self/cgroup`)
	if len(got.Workers) != 1 || got.Workers[0].Verdict != report.Passed {
		t.Errorf("workers %+v, want one that passes", got.Workers)
	}
}

// The command may be a worker itself.
func TestRunCommandIsAWorker(t *testing.T) {
	got := run(t, `exec sandrun worker --label w -- $HUNGRY anon 200M`)
	if w := find(t, got, "w"); w.Verdict != report.Memory || got.Exit != 128+9 {
		t.Errorf("%s, exit %d; want memory and 137", w.Verdict, got.Exit)
	}
}

// Processes that outlive their worker are counted and go with its leaf.
func TestRunLeftovers(t *testing.T) {
	got := run(t, `sandrun worker --label daemon -- sh -c 'setsid sleep 1000 & setsid sleep 1000 & exit 0'`)
	if w := find(t, got, "daemon"); w.Verdict != report.Passed || w.Evidence.Leftover != 2 {
		t.Errorf("%s with %d left over, want passed with 2", w.Verdict, w.Evidence.Leftover)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "leaves: 2 ") {
		t.Errorf("notes %q, want one on the two", got.Notes)
	}
}

// The command and its workers have the file mode mask that was asked for; sandrun keeps its own.
func TestRunUmask(t *testing.T) {
	tr := newTrial(t, `umask; sandrun worker -- sh -c umask`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := tr.open(t)
	c, mask := tr.command(s), 0o027
	c.Stdout, c.Umask = w, &mask
	before := syscall.Umask(0o022)
	_, err = s.Run(t.Context(), c)
	after := syscall.Umask(before)
	_ = w.Close()
	out, rerr := io.ReadAll(r)
	_ = r.Close()
	if err := errors.Join(err, rerr); err != nil || string(out) != "0027\n0027\n" || after != 0o022 {
		t.Errorf("%v, masks %q, sandrun's own %#o; want 0027 twice, and 022", err, out, after)
	}
}

// The command starts through the shim where clone3 cannot put it into its leaf.
func TestStartByShim(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	tr := newTrial(t, `cat /proc/self/cgroup; exit 5`)
	tr.stdout = w
	s := tr.open(t)
	served := make(chan struct{})
	go func() { defer close(served); s.serve(t.Context()) }()
	cmd, err := s.startByShim(tr.command(s))
	if err != nil {
		t.Fatal(err)
	}
	status := s.await(t.Context(), cmd)
	_ = w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if status != 5 || !strings.HasSuffix(strings.TrimSpace(string(out)), "/machine/main") {
		t.Errorf("exit %d in %q, want 5 in the main leaf", status, out)
	}
	close(s.stopped)
	if err := errors.Join(s.listener.Close(), s.oomLog.Close()); err != nil {
		t.Error(err)
	}
	<-served
}

// An interrupt that no terminal has sent reaches every process of the run; the
// second one kills it.
func TestRunInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		twice        bool
		exit         int
	}{
		{"once", `sandrun worker --label w -- sleep 60; exit 9`, false, 128 + int(syscall.SIGINT)},
		{"twice", `trap '' INT; sandrun worker --label w -- sleep 60`, true, 128 + int(syscall.SIGKILL)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			tr := newTrial(t, tt.script)
			tr.Signals = signals
			s := tr.open(t)
			go func() {
				waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.running) == 1 })
				time.Sleep(100 * time.Millisecond) // until the shim has become sleep
				signals <- syscall.SIGINT
				if tt.twice {
					signals <- syscall.SIGINT
				}
			}()
			got, err := s.Run(t.Context(), tr.command(s))
			if err != nil {
				t.Fatal(err)
			}
			if w := find(t, got, "w"); w.Verdict != report.Canceled {
				t.Errorf("%s (%s), want canceled", w.Verdict, w.Evidence.Why)
			}
			if got.Exit != tt.exit {
				t.Errorf("exit %d, want %d", got.Exit, tt.exit)
			}
		})
	}
}

func waitFor(t *testing.T, done func() bool) {
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("waited for 5 s in vain")
}

// A worker that no machine could hold is refused before anything starts.
func TestNewRefusesAWorkerLargerThanTheMachine(t *testing.T) {
	_, err := New(Config{Dir: t.TempDir(), Reserve: 100 * mib, Worker: cgroup.Limits{Memory: 200 * mib, Pids: 10}})
	if err == nil || !strings.Contains(err.Error(), "200 MiB") || !strings.Contains(err.Error(), "--worker-memory") {
		t.Errorf("error %v, want both sizes and the flag to change", err)
	}
}

// Whoever is neither root nor the run's owner gets no worker, and what cannot be
// capped is not started.
func TestShimRefusals(t *testing.T) {
	tr := newTrial(t, `exec 2>&1
		chmod 711 "${SANDRUN_SOCK%/*}"; chmod 666 $SANDRUN_SOCK
		setpriv --reuid 65534 --clear-groups sandrun worker -- echo started; echo rc=$?
		SANDRUN_SOCK=/nowhere/sock sandrun worker -- echo started; echo rc=$?
		exit 0`)
	out := output(t, tr)
	for _, want := range []string{
		"user 65534 may not start workers in a run of user 0", "rc=125",
		"connect to SANDRUN_SOCK=/nowhere/sock: No such file or directory", "rc=125",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %q", want, out)
		}
	}
	if strings.Contains(out, "started") {
		t.Errorf("a worker was started without caps: %q", out)
	}
}

// When the supervisor dies, a worker that waits for admission is not started.
func TestShimWithoutSupervisor(t *testing.T) {
	tr := newTrial(t, "")
	s := tr.open(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := tr.command(s)
	c.Path, c.Argv = filepath.Join(strings.Split(os.Getenv("PATH"), ":")[0], "sandrun"), []string{"sandrun", "worker", "--", "echo", "started"}
	c.Stdout, c.Stderr = w, w
	cmd := c.cmd()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	conn, err := s.listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, sandbox.RequestMax)
	n, err := conn.Read(packet)
	if err != nil {
		t.Fatal(err)
	}
	if req, err := sandbox.ParseRequest(packet[:n]); err != nil || req.Kind != "worker" || strings.Join(req.Argv, " ") != "echo started" {
		t.Errorf("request %+v, %v", req, err)
	}
	_ = conn.Close()
	out, _ := io.ReadAll(r)
	_ = r.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "nothing would cap it") {
		t.Errorf("%v, %q; want exit 125 and the reason", err, out)
	}
	if err := errors.Join(s.listener.Close(), s.oomLog.Close()); err != nil {
		t.Error(err)
	}
}

// output runs the trial and returns what its script printed.
func output(t *testing.T, tr *trial) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tr.stdout = w
	text := make(chan string)
	go func() { b, _ := io.ReadAll(r); _ = r.Close(); text <- string(b) }()
	tr.run(t)
	_ = w.Close()
	return <-text
}

// The program gets its arguments as they were, however many, with those of the
// adapter behind argv[0]; its oom_score_adj makes it a victim before the command.
func TestShimArguments(t *testing.T) {
	tr := newTrial(t, `
		set -- "" 'a b' "$(printf 'x%.0s' $(seq 100000))"
		sandrun worker --label=w -- sh -c 'echo "$# <$1> <$2> ${#3} $0"; cat /proc/self/oom_score_adj' name "$@"
		cat /proc/self/oom_score_adj`)
	if out, want := output(t, tr), "3 <> <a b> 100000 name\n500\n0\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
	tr = newTrial(t, `sandrun worker -- echo "$@" after`)
	tr.Classify = func(sandbox.Request) Placement {
		return Placement{Worker: true, Extra: []string{"first", "second one"}}
	}
	if out, want := output(t, tr), "first second one after\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

// A program that somebody still has open for writing is executed once it is not.
func TestShimBusyText(t *testing.T) {
	tr := newTrial(t, `
		cp /bin/echo $BUSY/echo
		exec 9>>$BUSY/echo
		$BUSY/echo 'is not busy' 2>/dev/null 9>&-
		sandrun worker --label busy -- $BUSY/echo done 9>&- &
		sleep 0.3; exec 9>&-; wait $!`)
	t.Setenv("BUSY", t.TempDir())
	if out := output(t, tr); out != "done\n" {
		t.Errorf("output %q, want the program's", out)
	}
}
