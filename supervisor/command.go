package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// A Command is the user's command: it and what it builds run in the main leaf.
type Command struct {
	Path       string   // of the executable
	Argv       []string // from argv[0]
	Env        []string
	Dir        string
	Stdin      *os.File
	Stdout     *os.File
	Stderr     *os.File
	Credential *syscall.Credential // nil: as sandrun itself
	Umask      *int                // the file mode mask, umask(2); nil: sandrun's own
}

// start runs the command in the main leaf, never outside it. The kernel kills the
// command if sandrun dies (PR_SET_PDEATHSIG).
func (s *Supervisor) start(c Command) (*exec.Cmd, error) {
	cmd := c.cmd()
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = s.Tree.Main().FD()
	err := s.launch(cmd, c.Umask)
	if noCloneIntoCgroup(err) {
		return s.startByShim(c)
	}
	return cmd, err
}

// startByShim serves where clone3(2) or its flag is refused (a container's seccomp
// filter, say): the shim waits until it was moved, as a worker does.
func (s *Supervisor) startByShim(c Command) (*exec.Cmd, error) {
	c.Argv = append([]string{"sandrun", "worker", "--", c.Path}, c.Argv[1:]...)
	c.Path = "/proc/self/exe"
	s.mu.Lock()
	s.byShim = true
	s.mu.Unlock()
	cmd := c.cmd()
	return cmd, s.launch(cmd, c.Umask)
}

func (c Command) cmd() *exec.Cmd {
	return &exec.Cmd{
		Path: c.Path, Args: c.Argv, Env: c.Env, Dir: c.Dir,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: c.Credential},
	}
}

// noCloneIntoCgroup tells the errors by which clone3(2) with CLONE_INTO_CGROUP is
// not to be had. A command that may not be executed gives EACCES as well; the shim
// then says so.
func noCloneIntoCgroup(err error) bool {
	var e *os.PathError
	if !errors.As(err, &e) || e.Op != "fork/exec" {
		return false
	}
	for _, refused := range []error{syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EBUSY, syscall.EACCES, syscall.EINVAL} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return false
}

// launch starts cmd from a thread that lives as long as this process: the parent
// death signal is sent when the forking *thread* ends; prctl(2).
func (s *Supervisor) launch(cmd *exec.Cmd, umask *int) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the mask is this thread's alone
		if umask != nil {
			if err := sys.ThreadUmask(*umask); err != nil {
				started <- err
				return
			}
		}
		s.mu.Lock() // the shim may ask before we know its pid
		err := cmd.Start()
		if err == nil {
			s.command = cmd.Process.Pid
		}
		s.mu.Unlock()
		started <- err
		if err == nil {
			<-s.stopped
		}
	}()
	return <-started
}

// await returns the command's exit status. It ends the command when the context
// or the run's time-out does, and forwards signals meanwhile.
func (s *Supervisor) await(ctx context.Context, cmd *exec.Cmd) int {
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // its status is in ProcessState
	var timeout <-chan time.Time
	if s.RunTimeout > 0 {
		timer := time.NewTimer(s.RunTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	done, interrupts := ctx.Done(), 0
	for {
		select {
		case <-ended:
			return exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus))
		case <-done:
			done = nil
			s.end(context.Cause(ctx))
		case <-timeout:
			s.end(fmt.Errorf("%w, %v", errRunTimeout, s.RunTimeout))
		case sig := <-s.Signals:
			interrupts = s.forward(sig.(syscall.Signal), interrupts)
		}
	}
}

// end kills the workers, with the reason, and then the command.
func (s *Supervisor) end(reason error) {
	s.interrupt(reason)
	s.cancel(reason)
	_ = s.Tree.Machine().Kill() // the tree's Close kills again, and reports
}

// forward treats a signal as a user at a terminal expects: the first interrupt
// reaches the whole run, the second kills it. A terminal has sent its interrupt
// to every process of the foreground group already, so it is not sent again.
// Other signals go to the command, whose part it is to end its workers; those it
// leaves are killed when it is gone. It returns the number of interrupts so far.
func (s *Supervisor) forward(sig syscall.Signal, interrupts int) int {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP:
		s.interrupt(errInterrupted)
		if interrupts > 0 {
			s.end(errInterrupted)
			return interrupts + 1
		}
		interrupts++
	}
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT:
		if group, err := sys.ForegroundGroup(); err == nil && group == syscall.Getpgrp() {
			break
		}
		pids, _ := s.Tree.Machine().Procs()
		for _, pid := range pids {
			if pid > 0 { // 0 stands for one that this pid namespace does not see
				_ = sys.Kill(pid, sig) // it may be gone
			}
		}
	default:
		s.mu.Lock()
		pid := s.command
		s.mu.Unlock()
		_ = sys.Kill(pid, sig)
	}
	return interrupts
}
