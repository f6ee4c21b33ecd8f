package guest

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// endsBoot reports whether a signal means an end before there is a command that
// could say otherwise.
func endsBoot(s syscall.Signal) bool {
	switch s {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		return true
	}
	return false
}

func (r *running) hostSignal(s os.Signal) {
	switch sig := s.(syscall.Signal); {
	case sig == syscall.SIGWINCH && r.term != nil:
		if ws := r.term.size(); ws != nil {
			_ = r.link.send(message{Winsize: ws})
		}
	case sig == syscall.SIGCONT && r.term != nil:
		_ = r.term.enter()
	case sig == syscall.SIGTSTP:
		r.freeze()
	default:
		_ = r.link.send(message{Signal: int(sig)})
	}
}

// suspend stops this process because its command was stopped, as a shell's user
// expects of ^Z, and lets the command go on when this process does.
func (r *running) suspend() {
	r.stopSelf()
	_ = r.link.send(message{Signal: int(syscall.SIGCONT)})
}

// freeze stops this process and the whole machine with it, for a ^Z that this
// process got itself.
func (r *running) freeze() {
	r.kernel.signal(syscall.SIGSTOP)
	r.stopSelf()
	r.kernel.signal(syscall.SIGCONT)
}

// stopSelf stops this process and returns when it was continued; at once where no
// shell could continue it.
func (r *running) stopSelf() {
	if sys.LeadsSession() {
		return
	}
	if r.term != nil {
		r.term.leave()
	}
	runtime.LockOSThread()
	err := sys.StopSelf()
	runtime.UnlockOSThread()
	if err != nil {
		r.fault(fmt.Errorf("stop this process: %w", err))
	}
	if r.term == nil {
		return
	}
	if err := r.term.enter(); err != nil {
		r.fault(fmt.Errorf("make the terminal raw: %w", err))
	}
	if ws := r.term.size(); ws != nil {
		_ = r.link.send(message{Winsize: ws})
	}
}
