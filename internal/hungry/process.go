package hungry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// self returns a command that runs words in a new process of this binary.
func self(words []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", words...)
	cmd.Env = append(os.Environ(), Env())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// status turns what Wait said into an error that carries the exit status, 128+n for signal n.
func status(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	ws := exit.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return exitCode(128 + int(ws.Signal()))
	}
	return exitCode(ws.ExitStatus())
}

// keep holds what was taken for as long as hold said.
func (p *program) keep() error {
	time.Sleep(p.hold)
	runtime.KeepAlive(p.kept)
	return nil
}

func hold(p *program, args []string) error {
	d, rest, err := timeFirst(args)
	if err != nil {
		return err
	}
	p.hold = d
	return p.run(rest)
}

func child(_ *program, args []string) error { return status(self(args).Run()) }

func times(_ *program, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%w: want N WORDS, got %q", errUsage, args)
	}
	n, err := parseCount(args[0])
	if err != nil {
		return err
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = status(self(args[1:]).Run()) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// setsid runs words in a process that has left its parent and its session, and
// waits, on a pipe that they all hold, until it and its children are gone. Its
// exit status is lost, as it is for every daemon: the status here is 0.
func setsid(_ *program, args []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	cmd := self(append([]string{"orphan-stage"}, args...))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{w} // held by the grandchild, as descriptor 3
	err = errors.Join(cmd.Run(), w.Close())
	if err != nil {
		return status(err)
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

func orphan(_ *program, args []string) error {
	cmd := self(append([]string{"orphan-stage"}, args...))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return status(cmd.Run())
}

// orphanStage starts words and exits at once: its child is nobody's then. The
// descriptor 3 that setsid gave it is not closed on exec, so the child has it too.
func orphanStage(_ *program, args []string) error {
	return self(args).Start()
}

func deaf(p *program, args []string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	return p.run(args)
}

func after(p *program, args []string) error {
	d, rest, err := timeFirst(args)
	if err != nil {
		return err
	}
	time.Sleep(d)
	return p.run(rest)
}

func say(p *program, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%w: want LINE WORDS, got %q", errUsage, args)
	}
	if _, err := fmt.Println(args[0]); err != nil {
		return err
	}
	return p.run(args[1:])
}

func both(p *program, args []string) error {
	i := slices.Index(args, ",")
	if i < 0 {
		return fmt.Errorf("%w: want WORDS , WORDS, got %q", errUsage, args)
	}
	if err := p.run(args[:i]); err != nil {
		return err
	}
	return p.run(args[i+1:])
}

func sleep(_ *program, args []string) error {
	d, rest, err := timeFirst(append(args, ""))
	if err != nil || len(rest) != 1 {
		return fmt.Errorf("%w: want TIME, got %q", errUsage, args)
	}
	time.Sleep(d)
	return nil
}

func exit(_ *program, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: want STATUS, got %q", errUsage, args)
	}
	n, err := strconv.ParseUint(args[0], 10, 8)
	if err != nil {
		return fmt.Errorf("%w: status %q", errUsage, args[0])
	}
	return exitCode(n)
}

func die(_ *program, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: want SIGNAL, got %q", errUsage, args)
	}
	n, err := parseCount(args[0])
	if err != nil {
		return err
	}
	signal.Reset(syscall.Signal(n))
	if err := syscall.Kill(os.Getpid(), syscall.Signal(n)); err != nil {
		return fmt.Errorf("kill self with %d: %w", n, err)
	}
	time.Sleep(time.Minute) // the signal is on its way
	return fmt.Errorf("signal %d did not end the process", n)
}

// LineSize is how long each line of spew is, bytes, with its newline.
const LineSize = 64

// AppendLine appends line number i, from 0, that spew writes: the number in 16
// digits, and text.
func AppendLine(b []byte, i int64) []byte {
	var digits [16]byte
	for d := len(digits) - 1; d >= 0; d-- {
		digits[d] = '0' + byte(i%10)
		i /= 10
	}
	b = append(b, digits[:]...)
	return append(b, " the quick brown fox jumps over the lazy dog ..\n"...)
}

func spew(_ *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	var b []byte
	for i := int64(0); size > 0; size -= int64(len(b)) {
		for b = b[:0]; len(b) < 1024*LineSize; i++ {
			b = AppendLine(b, i)
		}
		b = b[:min(size, int64(len(b)))]
		if _, err := os.Stdout.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// spare makes the runtime start n threads and park them. A Go program that finds
// no thread when it needs one ends in a runtime error; with some to spare it
// lives on, as programs in other languages do, and sees the refusals.
func spare(n int) {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-release
			runtime.UnlockOSThread()
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
}

// enough refusals of a fork make the point.
const enough = 1000

func forks(_ *program, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: want MAX TIME, got %q", errUsage, args)
	}
	limit, err := parseCount(args[0])
	if err != nil {
		return err
	}
	d, err := parseTime(args[1])
	if err != nil {
		return err
	}
	sleeper, err := exec.LookPath("sleep") // one thread each; this binary has several
	if err != nil {
		return err
	}
	spare(8)
	// A child dies with the thread that made it, so that thread must stay this one.
	runtime.LockOSThread()
	attr := &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	var pids []int
	var denied int
	for end := time.Now().Add(d); time.Now().Before(end) && denied < enough; {
		if len(pids) >= limit {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		pid, err := syscall.ForkExec(sleeper, []string{"sleep", "60"}, attr)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			denied++
		case err != nil:
			return fmt.Errorf("fork number %d: %w", len(pids)+1, err)
		default:
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill child %d: %w", pid, err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return fmt.Errorf("wait for child %d: %w", pid, err)
		}
	}
	fmt.Printf("%d forks, %d refused\n", len(pids), denied)
	if denied > 0 {
		return exitCode(ExitRefused)
	}
	return nil
}

func threads(p *program, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: want MAX, got %q", errUsage, args)
	}
	n, err := parseCount(args[0])
	if err != nil {
		return err
	}
	// Each goroutine holds its thread. A refused clone ends a Go program with status 2
	// and "failed to create new OS thread": that is what users see.
	var ready sync.WaitGroup
	for range n {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			select {}
		}()
	}
	ready.Wait()
	return p.keep()
}

func forktree(_ *program, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: want DEPTH WIDTH, got %q", errUsage, args)
	}
	depth, err := parseCount(args[0])
	if err != nil {
		return err
	}
	width, err := parseCount(args[1])
	if err != nil {
		return err
	}
	if depth == 0 {
		time.Sleep(time.Second)
		return nil
	}
	var errs []error
	var started []*exec.Cmd
	for range width {
		cmd := self([]string{"forktree", strconv.Itoa(depth - 1), args[1]})
		if err := cmd.Start(); err != nil {
			errs = append(errs, refused(err))
			continue
		}
		started = append(started, cmd)
	}
	for _, cmd := range started {
		errs = append(errs, status(cmd.Wait()))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
