// Package supervisor is the brain of a run: it starts the command, admits workers
// over a unix socket, watches their leaves, gives verdicts and leaves nothing behind.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
)

// A Config is all that a run is decided by, before anything is touched.
type Config struct {
	// Dir is the run's private directory; the socket is made in it.
	Dir string
	// Tree is the run's cgroup subtree. The supervisor fills it and does not close it.
	Tree *cgroup.Tree
	// Workers is how many may run at once.
	Workers int
	// Reserve is how much of the machine's memory.max workers may reserve together, in bytes.
	Reserve int64
	// Worker are the caps of a worker's leaf.
	Worker cgroup.Limits
	// Classify says what a request is.
	Classify func(sandbox.Request) Placement
	// Owner is the user, besides root, whose processes may ask for a worker.
	Owner int
	// WorkerTimeout ends a worker, RunTimeout the run; 0 is never.
	WorkerTimeout, RunTimeout time.Duration
	// Signals are the signals that reached sandrun; see forward.
	Signals <-chan os.Signal
}

// A Placement is what the shim's request turned out to be.
type Placement struct {
	Worker  bool     // it gets a leaf; otherwise it runs where it is
	Adapter string   // how it came in
	Label   string   // what it is called
	Extra   []string // arguments to put behind argv[0]
}

// A Supervisor admits workers while their reservations fit the machine.
type Supervisor struct {
	Config
	admission admission
	listener  *net.UnixListener
	oomLog    *cgroup.OOMLog // nil where the kernel log may not be read
	score     int            // oom_score_adj of workers
	main      uint64         // id of the command's own cgroup

	spare   chan spare // one leaf made before it is needed
	stopped chan struct{}

	mu          sync.Mutex
	command     int  // pid of the command
	byShim      bool // the command's first request is for its own leaf
	running     map[*worker]struct{}
	finished    []report.Worker
	reports     map[string]cgroup.OOMReport // the kernel log's last word on a leaf
	machineOOMs int64                       // memory.events.local:oom of the machine, at the last sample
	machineUse  samples                     // of the machine
	mainUse     samples                     // of the command's own leaf
	interrupted error
	complaints  []error // of what came after a verdict
}

type spare struct {
	place Place
	err   error
}

// workerScore is the oom_score_adj of a worker (proc_pid_oom_score_adj(5)): when
// memory runs out above the leaves, a worker goes before the command that
// schedules it, and before the user's editor.
const workerScore = 500

// maxSocket is the longest path of a unix socket, in bytes; unix(7).
const maxSocket = 107

// New makes a Supervisor and its socket; Run uses it once.
func New(c Config) (*Supervisor, error) {
	if c.Worker.Memory > c.Reserve {
		return nil, fmt.Errorf("a worker may use %s, and all workers together %s: no worker could ever start (lower --worker-memory or take a larger profile)",
			report.FormatBytes(c.Worker.Memory), report.FormatBytes(c.Reserve))
	}
	path := filepath.Join(c.Dir, "sock")
	if len(path) > maxSocket {
		return nil, fmt.Errorf("listen for workers: the path %s has %d bytes, and a socket's at most %d (set XDG_RUNTIME_DIR or TMPDIR to a shorter one)",
			path, len(path), maxSocket)
	}
	main, err := sys.Inode(c.Tree.Main().FD())
	if err != nil {
		return nil, fmt.Errorf("id of %s: %w", c.Tree.Main().Path(), err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		return nil, fmt.Errorf("listen for workers: %w", err)
	}
	if err := os.Chown(path, c.Owner, -1); err != nil {
		return nil, errors.Join(fmt.Errorf("hand the socket to user %d: %w", c.Owner, err), l.Close())
	}
	s := &Supervisor{
		Config:    c,
		admission: admission{slots: c.Workers, budget: c.Reserve},
		listener:  l,
		main:      main,
		score:     max(sys.OOMScoreAdj(), workerScore),
		spare:     make(chan spare),
		stopped:   make(chan struct{}),
		running:   map[*worker]struct{}{},
		reports:   map[string]cgroup.OOMReport{},
	}
	if log, err := cgroup.OpenOOMLog(); err == nil {
		s.oomLog = log
	}
	return s, nil
}

// Socket is the path for SANDRUN_SOCK.
func (s *Supervisor) Socket() string { return filepath.Join(s.Dir, "sock") }

// Run starts the command in the machine's main leaf, serves its workers until it
// ends, and returns the record. The record's identity and profile are the
// caller's to fill. Without a record the command could not be started; an error
// beside one is of what came after.
func (s *Supervisor) Run(ctx context.Context, c Command) (run *report.Run, err error) {
	defer func() {
		if s.oomLog != nil {
			err = errors.Join(err, s.oomLog.Close())
		}
	}()
	start := time.Now()
	cmd, err := s.start(c)
	if err != nil {
		return nil, errors.Join(err, s.listener.Close())
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var serving, background sync.WaitGroup
	serving.Go(func() { s.serve(ctx) })
	background.Go(s.makeSpares)
	background.Go(s.sample)

	status := s.await(ctx, cmd)

	// The command is gone: what it left running has nobody to report to.
	closing := s.listener.Close()
	stop(errCommandEnded) // first: see enter
	s.cancel(errCommandEnded)
	err = s.Tree.Main().Kill() // the daemons it left, and the shims that wait
	serving.Wait()
	close(s.stopped)
	background.Wait()

	run = &report.Run{
		Start:       start,
		Wall:        report.Seconds(time.Since(start)),
		CommandExit: status,
		Exit:        status,
		Workers:     s.finished,
	}
	return run, errors.Join(err, s.account(run), closing, errors.Join(s.complaints...))
}

// serve answers shims until the listener is closed, and until all are done.
func (s *Supervisor) serve(ctx context.Context) {
	var shims sync.WaitGroup
	defer shims.Wait()
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // EMFILE and the like pass; the shims wait in the backlog
			time.Sleep(10 * time.Millisecond)
			continue
		}
		shims.Go(func() { s.handle(ctx, conn) })
	}
}

// makeSpares keeps one leaf ready, so that a worker finds its caps written and
// read back. Leaves are numbered in the order of admission.
func (s *Supervisor) makeSpares() {
	for n := 1; ; n++ {
		var made spare
		leaf, err := s.Tree.NewLeaf(fmt.Sprintf("worker-%04d", n), s.Worker)
		if made.err = err; err == nil {
			made.place = leaf
		}
		select {
		case s.spare <- made:
		case <-s.stopped:
			return // the tree's Close removes it
		}
	}
}

// sampleEvery is how often the use of running leaves is read.
const sampleEvery = 100 * time.Millisecond

func (s *Supervisor) sample() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.stopped:
			return
		}
		s.mu.Lock()
		workers := make([]*worker, 0, len(s.running))
		for w := range s.running {
			workers = append(workers, w)
		}
		s.mu.Unlock()
		for _, w := range workers {
			w.sample()
		}
		s.sampleMachine()
	}
}

func (s *Supervisor) sampleMachine() {
	ooms := int64(0)
	if s.oomLog == nil { // it would say which cgroup was full
		if events, err := s.Tree.Machine().Events(); err == nil {
			ooms = events.MemoryLocal.OOM
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machineOOMs = max(s.machineOOMs, ooms)
	s.machineUse.take(s.Tree.Machine())
	s.mainUse.take(s.Tree.Main())
}

// cancel kills every worker whose process still runs, for the reason given.
func (s *Supervisor) cancel(reason error) {
	s.mu.Lock()
	workers := make([]*worker, 0, len(s.running))
	for w := range s.running {
		workers = append(workers, w)
	}
	s.mu.Unlock()
	for _, w := range workers {
		w.stop(reason)
	}
}

// interrupt notes that the run was asked to end: workers that do not pass from
// now on were canceled.
func (s *Supervisor) interrupt(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupted == nil {
		s.interrupted = reason
	}
}

// account adds what the machine and the command's own leaf used, and makes the
// exit status tell of kills that the command kept quiet about.
func (s *Supervisor) account(run *report.Run) error {
	machine, main := s.Tree.Machine(), s.Tree.Main()
	limits := machine.Limits()
	machinePeaks, err1 := machine.Peaks()
	machineEvents, err2 := machine.Events()
	mainPeaks, err3 := main.Peaks()
	mainEvents, err4 := main.Events()
	run.Machine = usage(limits, machinePeaks, machineEvents, s.machineUse.best)
	run.Main = usage(limits, mainPeaks, mainEvents, s.mainUse.best)
	killed := run.Main.Counters["memory.events:oom_kill"]
	if killed > 0 {
		full := "the machine's memory.max " + report.FormatBytes(limits.Memory)
		if run.Machine.Counters["memory.events.local:oom"] == 0 {
			full = "no cap of this run, but this computer or a cgroup above the run"
		}
		run.Notes = append(run.Notes, "the command's own processes (not workers) were killed for memory: "+full+" was full")
	}
	if errors.Is(s.interrupted, errRunTimeout) {
		run.Notes = append(run.Notes, fmt.Sprintf("the run was killed by its time-out of %v", s.RunTimeout))
		killed++
	}
	left := 0
	for _, w := range run.Workers {
		if w.Verdict == report.Passed || w.Verdict == report.Failed { // the others have a line of their own
			left += w.Evidence.Leftover
		}
		if w.Verdict.Killed() || w.Verdict == report.Error {
			killed++
		}
	}
	if left > 0 {
		run.Notes = append(run.Notes, fmt.Sprintf(
			"processes outlived their workers and were killed with their leaves: %d (evidence.leftover of the JSON report says whose)", left))
	}
	if killed > 0 && run.Exit == 0 {
		run.Exit = 1
	}
	return errors.Join(err1, err2, err3, err4)
}

// exitStatus maps a wait status as a shell does: 128+n for signal n.
func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
