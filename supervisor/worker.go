package supervisor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
)

// A worker is one admitted process, from the shim's request to the verdict.
type worker struct {
	record report.Worker
	place  Place
	pidfd  *sys.Pidfd // of the worker's own process

	mu      sync.Mutex
	samples samples
	stopped error // why the supervisor killed it
}

const (
	// leftoverGrace is how long processes may outlive their worker.
	leftoverGrace = 250 * time.Millisecond
	// statusLinger is how long the runner may take to reap its worker.
	statusLinger = 2 * time.Second
)

// handle serves one shim.
func (s *Supervisor) handle(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	// Who connects and says nothing, from outside of the run, does not hold up its end.
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := s.converse(ctx, conn); err != nil {
		if errors.Is(err, syscall.EMFILE) {
			err = fmt.Errorf("%w (sandrun has two files open for each worker that waits: start it under a higher 'ulimit -n', or fewer workers at once)", err)
		}
		// The shim prints it and exits; if it is gone, nobody wants to know.
		_, _ = conn.Write(sandbox.Refuse(125, err.Error()))
	}
}

func (s *Supervisor) converse(ctx context.Context, conn *net.UnixConn) error {
	request, err := readRequest(conn)
	if err != nil {
		return err
	}
	peer, err := sys.PeerOf(conn)
	if err != nil {
		return err
	}
	if peer.UID != s.Owner && peer.UID != 0 {
		return fmt.Errorf("user %d may not start workers in a run of user %d", peer.UID, s.Owner)
	}
	pidfd, err := sys.OpenPidfd(peer.Pid)
	if err != nil {
		return err
	}
	defer func() { _ = pidfd.Close() }()
	// A shim that died in the backlog has left its number to somebody else, perhaps.
	if gone, err := sys.HungUp(conn); gone || err != nil {
		return errors.Join(errWentAway, err)
	}
	if s.isCommand(peer.Pid) {
		if err := s.Tree.Main().Add(peer.Pid); err != nil {
			return err
		}
		_, err := conn.Write(sandbox.Pass())
		return err
	}
	placement := s.Classify(request)
	if placement.Worker && pidfd.CgroupID() != s.main {
		placement.Worker, err = s.outsideLeaves(peer.Pid)
		if err != nil {
			return err
		}
	}
	if !placement.Worker {
		_, err := conn.Write(sandbox.Pass())
		return err
	}
	w := &worker{pidfd: pidfd, record: report.Worker{
		Label: placement.Label, Adapter: placement.Adapter, Argv: request.Argv, Pid: peer.Pid,
	}}
	return s.work(ctx, conn, w, placement.Extra)
}

// packets are buffers for requests: a fresh one for each worker would keep the
// garbage collector busy.
var packets = sync.Pool{New: func() any { return new([sandbox.RequestMax]byte) }}

func readRequest(conn *net.UnixConn) (sandbox.Request, error) {
	packet := packets.Get().(*[sandbox.RequestMax]byte)
	defer packets.Put(packet)
	n, err := conn.Read(packet[:])
	if err != nil {
		return sandbox.Request{}, err
	}
	return sandbox.ParseRequest(packet[:n])
}

// isCommand reports whether the shim that asks is the command on its way to the
// main leaf; that is so once, and only after startByShim.
func (s *Supervisor) isCommand(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.byShim && pid == s.command
	if is {
		s.byShim = false
	}
	return is
}

// outsideLeaves reports whether a process is in no worker's leaf yet. A worker's
// own children that come through the shim stay in its leaf.
func (s *Supervisor) outsideLeaves(pid int) (bool, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false, fmt.Errorf("find the cgroup of the new worker: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			name, member := s.Tree.Member(path)
			return !member || !strings.HasPrefix(name, "worker-"), nil
		}
	}
	return false, fmt.Errorf("process %d is in no cgroup v2 group: /proc/%d/cgroup has no line of cgroup v2 (0::PATH)", pid, pid)
}

// work takes a worker from admission to its verdict.
func (s *Supervisor) work(ctx context.Context, conn *net.UnixConn, w *worker, extra []string) error {
	// The shim says nothing more unless its exec fails; it closes the connection
	// by becoming the program, or by dying while it waits.
	waiting, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	hangup := make(chan syscall.Errno, 1)
	go func() {
		var errno [4]byte
		n, _ := conn.Read(errno[:])
		leave(errWentAway)
		if n == len(errno) {
			hangup <- syscall.Errno(binary.NativeEndian.Uint32(errno[:]))
		}
		close(hangup)
	}()

	asked := time.Now()
	release, err := s.admission.acquire(waiting, s.Worker.Memory)
	if err != nil {
		return err
	}
	defer release()
	made := <-s.spare
	if made.err != nil {
		s.record(w, facts{failure: made.err})
		return made.err
	}
	w.place = made.place
	w.record.ID = w.place.Name()
	w.record.Start = time.Now()
	w.record.Waited = report.Seconds(w.record.Start.Sub(asked))

	// From here on there is a leaf to account for, whatever happens.
	f := facts{limits: w.place.Limits()}
	f.machine.ooms = s.begin(w)
	f.failure = s.enter(ctx, conn, w, extra)
	if f.failure != nil && w.pidfd.Ended() {
		f.failure = nil // it was killed on the way in: its status says by what
	}
	if f.failure == nil {
		f.status, f.known, f.failure = s.follow(w)
		if errno, failed := <-hangup; failed {
			f.exec = fmt.Errorf("execute %s: %w", w.record.Argv[0], errno)
		}
	}
	entered := f.failure == nil
	f.left = s.drain(w)
	s.gather(w, &f)
	if w.record.Wall == 0 {
		w.record.Wall = report.Seconds(time.Since(w.record.Start))
	}
	if err := w.place.Remove(context.WithoutCancel(ctx)); err != nil {
		s.complain(err)
	}
	s.record(w, f)
	if !entered {
		return f.failure
	}
	return nil
}

// begin makes the worker known to sampling and cancellation, and returns how
// often the machine was full before it.
func (s *Supervisor) begin(w *worker) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[w] = struct{}{}
	return s.machineOOMs
}

// errWentAway is for a shim that nobody waits for any more.
var errWentAway = errors.New("the worker went away while it waited")

// enter moves the shim into its leaf and lets it go, unless the run has ended: who
// killed the workers then may have found this one in no leaf yet.
func (s *Supervisor) enter(ctx context.Context, conn *net.UnixConn, w *worker, extra []string) error {
	if w.pidfd.Ended() {
		return nil // and its number may be another's
	}
	if err := w.place.Add(w.record.Pid); err != nil {
		return err
	}
	if ctx.Err() != nil {
		w.stop(context.Cause(ctx))
		return nil
	}
	_, err := conn.Write(sandbox.Go(s.score, extra))
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil // it is dying: its status says by what
	}
	return err
}

// follow waits for the end of the worker's own process, or for its time-out.
func (s *Supervisor) follow(w *worker) (status syscall.WaitStatus, known bool, err error) {
	if s.WorkerTimeout > 0 {
		timer := time.AfterFunc(s.WorkerTimeout, func() {
			w.stop(fmt.Errorf("%w, %v", errWorkerTimeout, s.WorkerTimeout))
		})
		defer timer.Stop()
	}
	status, err = w.pidfd.Wait(statusLinger)
	w.record.Wall = report.Seconds(time.Since(w.record.Start))
	if errors.Is(err, sys.ErrStatusUnknown) {
		return 0, false, nil
	}
	return status, err == nil, err
}

// drain waits a moment for processes that outlive the worker, then kills them,
// and returns how many there were.
func (s *Supervisor) drain(w *worker) int {
	grace, cancel := context.WithTimeout(context.Background(), leftoverGrace)
	defer cancel()
	if empty, err := w.place.WaitEmpty(grace); empty && err == nil {
		return 0
	}
	left, _ := w.place.Procs()
	_ = w.place.Kill() // Remove kills again, waits, and says what stays
	return len(left)
}

// gather reads what the leaf says about its worker.
func (s *Supervisor) gather(w *worker, f *facts) {
	events, err := w.place.Events()
	if err != nil && f.failure == nil {
		f.failure = err
	}
	f.events = events
	s.mu.Lock()
	delete(s.running, w)
	f.asked = s.interrupted
	s.mu.Unlock()
	w.mu.Lock()
	f.stopped = w.stopped
	w.mu.Unlock()
	if events.Memory.OOMKill > 0 {
		s.explain(w, f)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	peaks, err := w.place.Peaks()
	if err != nil && f.failure == nil {
		f.failure = err
	}
	w.record.Usage = usage(f.limits, peaks, events, w.samples.best)
	if f.log != nil && f.log.HasSplit && events.MemoryLocal.OOM > 0 {
		w.record.Usage.Split = split(f.log.Split, "kernel log")
	}
}

// explain finds out more about a kill for memory: the kernel's own report, how
// often the machine was full, and who filled it.
func (s *Supervisor) explain(w *worker, f *facts) {
	before := f.machine.ooms
	f.machine.limits = s.Tree.Machine().Limits()
	f.machine.ooms = 0
	events, err := s.Tree.Machine().Events()
	s.mu.Lock()
	if err == nil {
		f.machine.ooms = events.MemoryLocal.OOM - before
		s.machineOOMs = max(s.machineOOMs, events.MemoryLocal.OOM)
	}
	if s.oomLog != nil {
		for _, r := range s.oomLog.Reports() {
			if name, ok := s.Tree.Member(r.TaskMemcg); ok {
				s.reports[name] = r
			}
		}
	}
	if r, ok := s.reports[w.record.ID]; ok {
		f.log = &r
		if name, ok := s.Tree.Member(r.Memcg); !ok || name != "machine" {
			f.machine.ooms = 0 // the machine was full, but not then
		}
	}
	f.biggest = append(f.biggest, w.share())
	for other := range s.running {
		f.biggest = append(f.biggest, other.share())
	}
	s.mu.Unlock()
	slices.SortFunc(f.biggest, func(a, b report.Share) int { return int(b.Memory - a.Memory) })
	f.biggest = f.biggest[:min(len(f.biggest), 3)]
}

// complain keeps what went wrong after a worker's end: it is told with the run, and
// takes no verdict's place.
func (s *Supervisor) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints = append(s.complaints, err)
}

// record adds the finished worker to the run.
func (s *Supervisor) record(w *worker, f facts) {
	r := &w.record
	r.Verdict, r.Evidence = judge(f)
	if f.known && f.failure == nil {
		if f.status.Signaled() {
			r.Signal = sys.SignalName(f.status.Signal())
		} else {
			code := f.status.ExitStatus()
			r.Exit = &code
		}
	}
	if r.Evidence.Why == "" {
		r.Evidence.Why = report.Explain(*r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = append(s.finished, *r)
}

// stop kills the worker for a reason, unless its process has ended by itself.
func (w *worker) stop(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pidfd.Ended() {
		return
	}
	if w.stopped == nil {
		w.stopped = reason
	}
	_ = w.place.Kill() // Remove kills again, waits, and says what stays
}

// sample reads what the worker uses now.
func (w *worker) sample() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples.take(w.place)
}

// share is the worker's part of the machine, as last sampled.
func (w *worker) share() report.Share {
	w.mu.Lock()
	defer w.mu.Unlock()
	return report.Share{ID: w.record.ID, Label: w.record.Label, Memory: w.samples.last}
}
