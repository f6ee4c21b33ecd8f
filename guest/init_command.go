package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// killDelay bounds how long process 1 waits for processes that it has killed, and
// then for their output.
const killDelay = 3 * time.Second

// Statuses of a command, as a shell gives them (POSIX, Shell Command Language 2.8.2).
const (
	codeNotExecutable = 126
	codeNotFound      = 127
	codeSignal        = 128 // + the signal
)

// A child is the command inside the guest.
type child struct {
	link     *link
	files    [3]*os.File // its streams, by stream; closed once it has them
	outputs  map[string]*output
	terminal *os.File      // its terminal, held so that it does not hang up; nil without one
	master   *os.File      // the other side of the terminal
	events   *json.Decoder // of the terminal's leader; nil without a terminal
	stdin    *feed         // what fills the pipe to its stdin; nil without one

	mu  sync.Mutex
	pid int // 0 once reaped
}

// An output is one line to the host.
type output struct {
	from *os.File
	n    int64 // bytes, final when done is closed
	err  error // of the line
	done chan struct{}
}

// command runs the spec's command to its end and tells the host how it ended.
func (i *initProcess) command() error {
	if st, err := os.Stat(string(i.spec.Dir)); err != nil {
		return fmt.Errorf("working directory: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("working directory %s: not a directory", i.spec.Dir)
	}
	c := &child{link: i.link, outputs: make(map[string]*output)}
	if err := c.makeStreams(&i.spec); err != nil {
		return err
	}
	startErr := c.start(&i.spec)
	if startErr == nil {
		if err := i.link.send(message{Started: true}); err != nil {
			return err
		}
	}
	acked := make(chan struct{})
	go c.obey(acked)
	end := &ending{}
	if startErr != nil {
		end.Code, end.Reason = codeNotExecutable, fmt.Sprintf("%s: %v", i.spec.Args[0], startErr)
		if errors.Is(startErr, syscall.ENOENT) {
			end.Code = codeNotFound
		}
	} else {
		if c.stdin != nil {
			go c.stdin.run(i)
		}
		status, err := c.wait()
		if err != nil {
			return err
		}
		end.Code = status.ExitStatus()
		if status.Signaled() {
			end.Code = codeSignal + int(status.Signal())
		}
	}
	stuck, err := killAll()
	if err != nil {
		return err
	}
	if c.stdin != nil && c.stdin.pipe && startErr == nil && !stuck {
		end.Stdin = c.stdin.taken()
	}
	if err := c.drain(end, stuck); err != nil {
		return err
	}
	// What the command wrote to files is on the host before its end is known there.
	sys.Sync()
	if err := i.link.send(message{Exit: end}); err != nil {
		return err
	}
	<-acked
	return nil
}

// makeStreams makes the command's three files and what connects them to lines.
func (c *child) makeStreams(s *spec) error {
	for at, how := range s.Streams {
		var err error
		switch n := stream(at); {
		case how == asNull:
			c.files[n], err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		case how == asTerminal:
			err = c.makeTerminal(s)
			c.files[n] = c.terminal
		case how == asStdout && n == stderr:
			c.files[n] = c.files[stdout]
		case how == asPipe && n == stdin:
			var w *os.File
			if c.files[n], w, err = os.Pipe(); err == nil {
				c.stdin = newFeed(w)
				c.stdin.pipe = true
			}
		case how == asPipe && n == stdout:
			c.files[n], err = c.makeOutput(n.String(), lineStdout)
		case how == asPipe:
			c.files[n], err = c.makeOutput(n.String(), lineStderr)
		default:
			err = fmt.Errorf("%s is %q", n, how)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *child) makeOutput(name string, line int) (*os.File, error) {
	to, err := openLine(line)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.copyOut(name, r, to)
	return w, nil
}

func (c *child) copyOut(name string, from, to *os.File) {
	o := &output{from: from, done: make(chan struct{})}
	c.outputs[name] = o
	go func() {
		defer close(o.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if _, o.err = to.Write(buf[:n]); o.err != nil {
					return
				}
				o.n += int64(n)
			}
			if err != nil {
				return // the end of a pipe; EIO of a terminal that nobody holds; closed
			}
		}
	}()
}

// makeTerminal makes the one pseudo-terminal, once.
func (c *child) makeTerminal(s *spec) (err error) {
	if c.terminal != nil {
		return nil
	}
	if c.master, c.terminal, err = sys.OpenPTY(); err != nil {
		return err
	}
	err = sys.Control(c.terminal, func(fd int) error {
		if s.Winsize != nil {
			if err := sys.SetWinsize(fd, s.Winsize); err != nil {
				return fmt.Errorf("size of the terminal: %w", err)
			}
		}
		if s.Termios != nil {
			if err := sys.SetTermios(fd, s.Termios); err != nil {
				return fmt.Errorf("modes of the terminal: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	line, err := openLine(lineTerminal)
	if err != nil {
		return err
	}
	c.copyOut(asTerminal, c.master, line)
	if s.Streams[stdin] == asTerminal {
		c.stdin = newFeed(c.master)
	}
	return nil
}

// start starts the command and closes process 1's copies of its files.
func (c *child) start(s *spec) (err error) {
	var files []uintptr
	tty := -1
	for n, f := range c.files {
		files = append(files, f.Fd()) // blocking, as a command expects its files
		if f == c.terminal {
			tty = n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if tty >= 0 {
		err = c.startLeader(s, files, tty)
	} else {
		c.pid, err = syscall.ForkExec(s.Args[0], s.Args, &syscall.ProcAttr{
			Dir: string(s.Dir), Env: s.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
		})
	}
	for _, f := range c.files {
		if f != c.terminal {
			_ = f.Close() // stderr may be stdout's
		}
	}
	return err
}

// wait reaps whatever ends in the guest until the command does.
func (c *child) wait() (syscall.WaitStatus, error) {
	if c.events != nil {
		return c.follow()
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case pid == c.pid:
			c.gone()
			return status, nil
		}
	}
}

// gone forgets the command's process: its number may be another's now.
func (c *child) gone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = 0
}

// obey does what the host says.
func (c *child) obey(acked chan<- struct{}) {
	for {
		m, err := c.link.receive()
		if err != nil {
			continue // the command may have changed the line's modes
		}
		switch {
		case m.Signal != 0:
			c.signal(syscall.Signal(m.Signal))
		case m.Off:
			c.signal(syscall.SIGKILL)
		case m.Winsize != nil && c.master != nil:
			_ = sys.Control(c.master, func(fd int) error { return sys.SetWinsize(fd, m.Winsize) })
		case m.Chunk != 0 && c.stdin != nil:
			c.stdin.pieces <- m.Chunk
		case m.EOF && c.stdin != nil:
			close(c.stdin.pieces)
		case m.Closed != stdin:
			if o := c.outputs[m.Closed.String()]; o != nil {
				_ = o.from.Close()
			}
		case m.Ack:
			close(acked)
			return
		}
	}
}

// signal sends a signal to the command, SIGCONT to its whole job.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.pid == 0:
	case s == syscall.SIGCONT:
		_ = syscall.Kill(-c.pid, s)
	default:
		_ = syscall.Kill(c.pid, s)
	}
}

// killAll ends every other process of the guest and reaps it. One that is stuck
// in the kernel is left: it goes with the machine.
func killAll() (stuck bool, err error) {
	gone := make(chan error, 1)
	go func() {
		_ = syscall.Kill(-1, syscall.SIGKILL) // ESRCH: there is none
		for {
			_, err := syscall.Wait4(-1, nil, 0, nil)
			if err == syscall.EINTR || err == nil {
				continue
			}
			if err == syscall.ECHILD {
				err = nil
			}
			gone <- err
			return
		}
	}()
	select {
	case err := <-gone:
		return false, err
	case <-time.After(killDelay):
		return true, nil
	}
}

// drain waits for the last output and fills in how much there was.
func (c *child) drain(end *ending, stuck bool) error {
	if c.terminal != nil {
		_ = c.terminal.Close()
	}
	if stuck { // and may hold a pipe, which then has no end
		for _, o := range c.outputs {
			_ = o.from.SetReadDeadline(time.Now().Add(killDelay))
		}
	}
	for name, o := range c.outputs {
		<-o.done
		if o.err != nil {
			return fmt.Errorf("pass the command's %s to the host: %w", name, o.err)
		}
	}
	for name, n := range map[string]*int64{
		stdout.String(): &end.Stdout, stderr.String(): &end.Stderr, asTerminal: &end.Terminal,
	} {
		if o := c.outputs[name]; o != nil {
			*n = o.n
		}
	}
	return nil
}
