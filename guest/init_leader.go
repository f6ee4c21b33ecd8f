package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// The kernel takes every process group of process 1's children for orphaned, and
// lets ^Z stop no process of an orphaned one (will_become_orphaned_pgrp in
// kernel/exit.c). So where there is a terminal, a leader stands between process 1
// and the command: it leads the terminal's session and has the command as a job.
// It is this program once more.
const leaderEnv = "SANDRUN_GUEST_LEADER"

// The leader's descriptors beside the command's three.
const (
	leaderSpecFD  = 3 // a leaderSpec
	leaderEventFD = 4 // leaderEvents
)

type leaderSpec struct {
	Args octetList `json:"args"`
	Env  octetList `json:"env"`
	Dir  octets    `json:"dir"`
	TTY  int       `json:"tty"` // which descriptor is the terminal
}

// A leaderEvent has one field set.
type leaderEvent struct {
	Pid     int                `json:"pid,omitempty"`   // it was started
	Errno   syscall.Errno      `json:"errno,omitempty"` // it could not be started
	Stopped bool               `json:"stopped,omitempty"`
	Ended   bool               `json:"ended,omitempty"`
	Status  syscall.WaitStatus `json:"status,omitempty"` // with ended
}

// runLeader is the leader's life. What goes wrong ends it, and process 1 tells
// the host that its events ended early.
func runLeader() error {
	spec, events := os.NewFile(leaderSpecFD, "spec"), json.NewEncoder(os.NewFile(leaderEventFD, "events"))
	syscall.CloseOnExec(leaderSpecFD)
	syscall.CloseOnExec(leaderEventFD)
	// The terminal's signals are for the job.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	var s leaderSpec
	if err := json.NewDecoder(spec).Decode(&s); err != nil {
		return fmt.Errorf("read the command: %w", err)
	}
	pid, err := syscall.ForkExec(s.Args[0], s.Args, &syscall.ProcAttr{
		Dir: string(s.Dir), Env: s.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Foreground: true, Ctty: s.TTY},
	})
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return events.Encode(leaderEvent{Errno: errno})
	}
	if err != nil {
		return err
	}
	if err := events.Encode(leaderEvent{Pid: pid}); err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case status.Stopped():
			if err := events.Encode(leaderEvent{Stopped: true}); err != nil {
				return err
			}
		default:
			return events.Encode(leaderEvent{Ended: true, Status: status})
		}
	}
}

// startLeader starts the leader with the command's files.
func (c *child) startLeader(s *spec, files []uintptr, tty int) (err error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return err
	}
	eventR, eventW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, specR.Close(), specW.Close())
	}
	_, err = syscall.ForkExec("/proc/self/exe", []string{os.Args[0]}, &syscall.ProcAttr{
		Dir: "/", Env: []string{leaderEnv + "=1"},
		Files: append(files, specR.Fd(), eventW.Fd()),
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: tty},
	})
	err = errors.Join(err, specR.Close(), eventW.Close())
	if err == nil {
		err = json.NewEncoder(specW).Encode(leaderSpec{Args: s.Args, Env: s.Env, Dir: s.Dir, TTY: tty})
	}
	err = errors.Join(err, specW.Close())
	if err != nil {
		return fmt.Errorf("leader of the terminal's session: %w", err)
	}
	c.events = json.NewDecoder(eventR)
	var first leaderEvent
	if err := c.events.Decode(&first); err != nil {
		return fmt.Errorf("leader of the terminal's session: %w", err)
	}
	if first.Errno != 0 {
		return first.Errno
	}
	c.pid = first.Pid
	return nil
}

// follow reaps whatever ends in the guest and tells the host when the command
// was stopped, until it ends.
func (c *child) follow() (syscall.WaitStatus, error) {
	go func() {
		for {
			if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
				return
			}
		}
	}()
	for {
		var e leaderEvent
		if err := c.events.Decode(&e); err != nil {
			return 0, fmt.Errorf("leader of the terminal's session: %w", err)
		}
		switch {
		case e.Stopped:
			if err := c.link.send(message{Stopped: true}); err != nil {
				return 0, err
			}
		case e.Ended:
			c.gone()
			return e.Status, nil
		}
	}
}
