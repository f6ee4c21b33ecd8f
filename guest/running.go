package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	defaultBootTimeout = 20 * time.Second
	// offDelay is how long a guest that was told to power off may take: it kills
	// its processes and writes its caches out.
	offDelay = 5 * time.Second
	// waitDelay is how long output may take once the kernel is gone.
	waitDelay = 2 * time.Second
)

// A running is a machine between Start and Wait.
type running struct {
	m        *Machine
	w        wiring
	link     *link
	console  *console
	kernel   *kernelProcess
	seat     seat
	pumps    map[string]*pump
	feed     *feeder
	feeding  bool // feed runs
	chunks   *chunks
	term     *terminal
	net      *passt
	messages chan message
	signals  chan os.Signal
	over     chan struct{} // closed when the kernel process has ended
	done     chan struct{} // closed when err is final
	err      error

	inErr  chan error // why stdin cannot go on
	outErr chan error // failures to write the host's streams
}

// start makes everything and starts the kernel process.
func (m *Machine) start() (_ *running, err error) {
	if m.Warn != nil {
		if free, err := availableMemory(); err == nil && free < m.Memory {
			m.Warn(fmt.Sprintf("the guest may use %s of memory, and the host has %s available", mib(m.Memory), mib(free)))
		}
	}
	memory, err := memoryDir(m.Memory, m.RunDir)
	if err != nil {
		return nil, err
	}
	r := &running{
		m:        m,
		console:  &console{done: make(chan struct{})},
		pumps:    make(map[string]*pump),
		messages: make(chan message),
		signals:  make(chan os.Signal, 16),
		over:     make(chan struct{}),
		done:     make(chan struct{}),
		inErr:    make(chan error, 1), // the feeder's last act
		outErr:   make(chan error, 4),
	}
	ours := false // the run directory
	defer func() {
		for _, f := range r.w.theirs {
			_ = f.Close()
		}
		if err != nil {
			r.release()
		}
		if err != nil && ours {
			err = errors.Join(err, removeLeftovers(m.RunDir))
		}
	}()
	if err := os.Mkdir(filepath.Join(m.RunDir, shareName), 0o700); err != nil {
		return nil, fmt.Errorf("the run directory is in use: %w", err)
	}
	ours = true
	if m.initPath() != m.Init {
		if own := ownDir(m.RunDir); own == "/dev" {
			return nil, fmt.Errorf("init %q: a kernel command line cannot carry such a path, and a link to it in %s is not seen by the guest: move the program or set TMPDIR", m.Init, m.RunDir)
		}
		if err := os.Symlink(m.Init, m.initPath()); err != nil {
			return nil, err
		}
	}
	if r.seat, err = takeSeat(seatKind); err != nil {
		return nil, err
	}
	args := m.kernelArgs()
	if m.Swap > 0 {
		if err := makeSwap(filepath.Join(m.RunDir, swapName), m.Swap); err != nil {
			return nil, err
		}
		args = append(args, "ubd0="+filepath.Join(m.RunDir, swapName))
	}
	s := &spec{
		Args: m.Args, Env: m.Env, Dir: octets(m.Dir),
		Swap: m.Swap > 0, Network: m.Network,
		Facts: m.hostFacts(r.seat.cpu),
	}
	if s.Hostname, err = os.Hostname(); err != nil {
		return nil, err
	}
	if m.Overlay {
		s.Overlay = octets(filepath.Join(m.Modules, "overlay.ko"))
	}
	if err := r.wire(s); err != nil {
		return nil, err
	}
	if m.Network == NetworkPasst {
		if r.net, err = startPasst(); err != nil {
			return nil, err
		}
		// The child's copy is among theirs, which are closed once it has them.
		fd := r.w.give(r.net.kernel)
		r.net.kernel = nil
		args = append(args, r.net.kernelArgument(fd))
	}
	if err := m.writeSpec(s); err != nil {
		return nil, err
	}

	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	logR, logW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = logW.Close() }()
	r.w.closers = append(r.w.closers, logR)

	cmd := exec.Command(m.Kernel, append(args, r.w.args...)...)
	cmd.Env = []string{"TMPDIR=" + memory}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, logW, logW
	cmd.ExtraFiles = r.w.theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// Before the terminal is raw: a signal must not end this process while it is.
	for _, s := range m.Forward {
		// What nohup and a shell's & have made this process ignore is not for its command.
		if !signal.Ignored(s) {
			signal.Notify(r.signals, s)
		}
	}
	if r.term != nil {
		signal.Notify(r.signals, syscall.SIGWINCH, syscall.SIGCONT)
		if err := r.term.enter(); err != nil {
			return nil, fmt.Errorf("make the terminal raw: %w", err)
		}
	}
	if r.kernel, err = startKernel(cmd, r.seat.cpu); err != nil {
		return nil, fmt.Errorf("start the guest kernel %s: %w", m.Kernel, err)
	}
	go r.console.follow(logR)
	for _, p := range r.pumps {
		go p.run()
	}
	go r.listen()
	return r, nil
}

// fault records a failure beside the command's own end.
func (r *running) fault(err error) {
	select {
	case r.outErr <- err:
	default:
	}
}

// listen passes the guest's messages on until the control line ends.
func (r *running) listen() {
	defer close(r.messages)
	for {
		m, err := r.link.receive()
		if err != nil {
			return
		}
		select {
		case r.messages <- m:
		case <-r.over:
			return
		}
	}
}

// supervise runs the machine from its start to its end.
func (r *running) supervise(ctx context.Context) {
	defer close(r.done)
	defer r.restoreOnPanic()
	boot := time.NewTimer(orDefault(r.m.BootTimeout, defaultBootTimeout))
	defer boot.Stop()
	netUp := make(chan error, 1)
	if r.net != nil {
		netCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { netUp <- r.net.Ready(netCtx) }()
	}
	var life, force <-chan time.Time
	if r.m.Timeout > 0 {
		t := time.NewTimer(r.m.Timeout)
		defer t.Stop()
		life = t.C
	}
	var (
		cause    error
		up       bool // process 1 runs
		started  bool // the command did
		end      *ending
		drained  chan struct{}
		canceled = ctx.Done()
		messages = r.messages
	)
	off := func(why error) {
		if cause == nil {
			cause = why
		}
		if !started && !errors.Is(why, ErrInit) { // process 1 does not listen yet
			r.kernel.kill()
			return
		}
		_ = r.link.send(message{Off: true})
		force = time.After(offDelay)
	}
	for running := true; running; {
		select {
		case m, ok := <-messages:
			switch {
			case !ok:
				messages = nil
			case m.Hello && up:
				// The kernel restarts itself when the command reboots it.
				off(fmt.Errorf("%w: it was rebooted from inside", ErrDied))
				r.kernel.kill()
			case m.Hello:
				up = true
				_ = r.link.open()
			case m.Started:
				started = true
				boot.Stop()
				_ = os.Remove(filepath.Join(r.m.RunDir, shareName, specFile))
				r.startInput()
			case m.Fail != "":
				boot.Stop() // it powers off
				off(fmt.Errorf("%w: %s", ErrInit, m.Fail))
			case m.Chunk != 0 && r.chunks != nil:
				r.chunks.consumed(m.Chunk)
			case m.StdinClosed && r.feed != nil:
				r.feed.stop()
			case m.Stopped:
				r.suspend()
			case m.Exit != nil && end == nil:
				started = true // or there is no such program
				boot.Stop()
				end = m.Exit
				drained = r.drain(end)
			}
		case err := <-netUp:
			if err != nil && ctx.Err() == nil {
				off(err)
			}
		case <-boot.C:
			off(fmt.Errorf("%w within %v", ErrBoot, orDefault(r.m.BootTimeout, defaultBootTimeout)))
		case <-life:
			life = nil
			off(r.stuck(fmt.Errorf("%w of %v", ErrTimeout, r.m.Timeout)))
		case err := <-r.inErr:
			off(err)
		case <-canceled:
			canceled = nil
			off(r.stuck(context.Cause(ctx)))
		case <-drained:
			drained = nil
			_ = r.link.send(message{Ack: true})
			force = time.After(offDelay)
		case <-force:
			r.kernel.kill()
		case s := <-r.signals:
			if sig := s.(syscall.Signal); !started && endsBoot(sig) {
				off(&ExitError{Code: codeSignal + int(sig)}) // as if the command had got it
				break
			}
			r.hostSignal(s)
		case <-r.kernel.ended:
			running = false
		}
	}
	close(r.kernel.reap)
	r.finish(end, cause, <-r.kernel.how)
}

// stuck adds to the reason for an end why the guest may have got no further.
func (r *running) stuck(why error) error {
	if note := crowded(r.kernel.Process.Pid, maxMapCount()); note != "" {
		return fmt.Errorf("%w: %s", why, note)
	}
	return why
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// startInput lets the host's stdin flow, now that there is someone to read it.
func (r *running) startInput() {
	if r.term != nil {
		r.term.booted()
		if err := r.term.enter(); err != nil {
			r.fault(fmt.Errorf("make the terminal raw: %w", err))
		}
	}
	if r.feed == nil {
		return
	}
	ready := func() bool { return true }
	if r.term != nil && r.term.input {
		ready = func() bool { return r.term.foreground() && r.term.enter() == nil }
	}
	r.feeding = true
	go r.feed.run(ready)
}

// drain tells the pumps how much there is and returns a channel that is closed
// when it has all been written.
func (r *running) drain(end *ending) chan struct{} {
	if r.feed != nil {
		r.feed.stop()
	}
	for name, n := range map[string]int64{
		stdout.String(): end.Stdout, stderr.String(): end.Stderr, asTerminal: end.Terminal,
	} {
		if p := r.pumps[name]; p != nil {
			p.expect(n)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range r.pumps {
			<-p.done
		}
	}()
	return done
}

// finish collects what is left and says how it ended.
func (r *running) finish(end *ending, cause, how error) {
	close(r.over)
	late := time.After(waitDelay)
	if r.feed != nil {
		r.feed.stop()
		if r.feeding {
			select { // what it reads would be read behind the place that is set here
			case <-r.feed.done:
			case <-late:
				late = closedTime
			}
		}
		if end != nil {
			r.feed.giveBack(end.Stdin)
		}
	}
	for name, p := range r.pumps {
		select {
		case <-p.done:
			if n := p.missing(); n > 0 && cause == nil {
				r.fault(fmt.Errorf("%w (%v) before the last %d bytes of the command's %s were out", ErrDied, ended(how), n, name))
			}
		case <-late:
			r.fault(fmt.Errorf("the guest's %s could not be written within %v: nobody reads it", name, waitDelay))
			late = closedTime
		}
	}
	select {
	case <-r.console.done:
	case <-late:
	}
	switch {
	case cause != nil && (errors.Is(cause, ErrBoot) || errors.Is(cause, ErrInit) || errors.Is(cause, ErrDied)):
		r.err = &MachineError{Err: cause, Console: r.console.String()}
	case cause != nil:
		r.err = cause
	case end == nil:
		r.err = &MachineError{Err: fmt.Errorf("%w (%v) before its command ended", ErrDied, ended(how)), Console: r.console.String()}
	case end.Code != 0:
		r.err = &ExitError{Code: end.Code, Reason: end.Reason}
	}
	r.release()
	errs := []error{r.err, removeLeftovers(r.m.RunDir)}
	for len(r.outErr) > 0 {
		errs = append(errs, <-r.outErr)
	}
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) == 1 {
		r.err = errs[0]
	} else {
		r.err = errors.Join(errs...)
	}
}

// closedTime is a time that has come.
var closedTime = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

func ended(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// release closes what Start opened.
func (r *running) release() {
	r.w.close()
	r.seat.release()
	if r.net != nil {
		_ = r.net.Close()
	}
	if r.feed != nil {
		r.feed.close()
	}
	if r.term != nil {
		r.term.leave()
		_ = r.term.file.Close()
	}
	signal.Stop(r.signals)
}

// restoreOnPanic gives the terminal back before a panic ends the process.
func (r *running) restoreOnPanic() {
	if p := recover(); p != nil {
		if r.term != nil {
			r.term.leave()
		}
		panic(p)
	}
}
