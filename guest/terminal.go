package guest

import (
	"os"
	"sync"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// A terminal is the host's terminal while a guest uses it. In raw mode every key
// goes to the guest, whose own line discipline gives ^C, ^D and ^Z their meaning.
type terminal struct {
	file  *os.File     // a descriptor of our own
	saved *sys.Termios // as it was at first
	input bool         // the command reads from it

	mu    sync.Mutex
	state *sys.Termios // as it is now, when that is not saved
	boots bool         // no command runs yet
}

func newTerminal(f *os.File, input bool) (*terminal, error) {
	own, err := sys.Dup(f)
	if err != nil {
		return nil, err
	}
	t := &terminal{file: own, input: input, boots: true}
	err = sys.Control(own, func(fd int) (err error) {
		t.saved, err = sys.GetTermios(fd)
		return err
	})
	if err != nil {
		_ = own.Close()
		return nil, err
	}
	return t, nil
}

// guestTermios is how the guest's terminal starts: as the host's is now. Where the
// host's stays in cooked mode, it does what there is to do to the output.
func (t *terminal) guestTermios() *sys.Termios {
	g := *t.saved
	if !t.input {
		g.Oflag &^= syscall.OPOST
	}
	return &g
}

// foreground reports whether this process may use the terminal. Where it is not
// the controlling one, nobody else is asked.
func (t *terminal) foreground() bool {
	group := 0
	err := sys.Control(t.file, func(fd int) (err error) {
		group, err = sys.TerminalGroup(fd)
		return err
	})
	return err != nil || group == syscall.Getpgrp()
}

// enter puts the terminal into raw mode, unless it belongs to another job now.
// Until the command runs, ^C and ^Z still mean this process: a key typed ahead is
// for the command, but there must be a way out of a boot.
func (t *terminal) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.input || !t.foreground() {
		return nil
	}
	raw := sys.RawTermios(t.saved)
	if t.boots {
		raw.Lflag |= syscall.ISIG
	}
	if t.state != nil && *t.state == *raw {
		return nil
	}
	if err := t.set(raw); err != nil {
		return err
	}
	t.state = raw
	return nil
}

// booted says that the command runs, which changes what enter does.
func (t *terminal) booted() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.boots = false
}

// leave gives the terminal back as it was.
func (t *terminal) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == nil {
		return
	}
	t.state = nil
	if t.foreground() {
		_ = t.set(t.saved)
	}
}

func (t *terminal) set(state *sys.Termios) error {
	return sys.Control(t.file, func(fd int) error { return sys.SetTermios(fd, state) })
}

// size returns the terminal's size, nil when it has none.
func (t *terminal) size() *sys.Winsize {
	var ws *sys.Winsize
	err := sys.Control(t.file, func(fd int) (err error) {
		ws, err = sys.GetWinsize(fd)
		return err
	})
	if err != nil {
		return nil
	}
	return ws
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	is := false
	_ = sys.Control(f, func(fd int) error { is = sys.IsTerminal(fd); return nil })
	return is
}
