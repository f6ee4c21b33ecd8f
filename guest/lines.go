package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sandrun/sandrun/internal/sys"
)

// pipeSize is asked for each pipe to or from the guest, in bytes; a larger pipe
// is fewer switches between the two kernels. Without it the default is kept.
const pipeSize = 1 << 20

// wiring are the files between the host and the kernel process.
type wiring struct {
	closers []io.Closer
	theirs  []*os.File // the child's descriptors from 3
	args    []string   // the kernel's arguments for its lines
}

func (w *wiring) close() {
	for _, c := range w.closers {
		_ = c.Close()
	}
}

// pipe makes a pipe and returns the host's end and the number of the child's.
func (w *wiring) pipe(toGuest bool) (ours *os.File, fd int, err error) {
	r, wr, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	_ = sys.Control(r, func(fd int) error {
		_, err := sys.SetPipeSize(fd, pipeSize)
		return err
	})
	ours, theirs := r, wr
	if toGuest {
		ours, theirs = wr, r
	}
	w.closers = append(w.closers, ours)
	return ours, w.give(theirs), nil
}

// give passes a file to the child and returns its number there.
func (w *wiring) give(f *os.File) int {
	w.theirs = append(w.theirs, f)
	return 2 + len(w.theirs)
}

// line makes a serial line of the guest from channels as "fd:3" or "null".
func (w *wiring) line(n int, in, out string) {
	w.args = append(w.args, fmt.Sprintf("ssl%d=%s,%s", n, in, out))
}

func channel(fd int) string { return "fd:" + strconv.Itoa(fd) }

// wire makes the lines between the two kernels, and says in the spec what each
// of the command's streams is.
func (r *running) wire(s *spec) error {
	ctlR, out, err := r.w.pipe(false)
	if err != nil {
		return err
	}
	ctlW, in, err := r.w.pipe(true)
	if err != nil {
		return err
	}
	r.link = newLink(ctlR, ctlW)
	r.link.hold()
	r.w.line(lineControl, channel(in), channel(out))

	files := [3]*os.File{r.m.Stdin, r.m.Stdout, r.m.Stderr}
	var tty *os.File
	for i, f := range files {
		switch {
		case f == nil:
			s.Streams[i] = asNull
		case isTerminal(f):
			s.Streams[i] = asTerminal
			// What the terminal shows goes where output goes, if that is it.
			if tty == nil || stream(i) == stdout {
				tty = f
			}
		case stream(i) == stderr && s.Streams[stdout] == asPipe && sys.SameFile(f, files[stdout]):
			s.Streams[i] = asStdout
		default:
			s.Streams[i] = asPipe
		}
	}
	if s.Streams[stdout] == asPipe {
		if err := r.output(lineStdout, stdout, files[stdout]); err != nil {
			return err
		}
	}
	if s.Streams[stderr] == asPipe {
		if err := r.output(lineStderr, stderr, files[stderr]); err != nil {
			return err
		}
	}
	if how := s.Streams[stdin]; how != asNull {
		if err := r.input(files[stdin], how); err != nil {
			return err
		}
	}
	if tty == nil {
		return nil
	}
	return r.wireTerminal(s, tty)
}

// input brings the host's stdin into the guest by files, also what is typed: the
// kernel's serial driver can stop for good when its input comes faster than it
// is read.
func (r *running) input(from *os.File, how string) (err error) {
	r.chunks = newChunks(filepath.Join(r.m.RunDir, shareName), r.link, r.over)
	eof := func() { _ = r.link.send(message{EOF: true}) }
	if how == asTerminal {
		eof = func() {} // it was hung up, and that is a signal
	}
	r.feed, err = newFeeder(from, r.chunks.pass, eof, func(err error) {
		// A machine that is over says so itself.
		if !errors.Is(err, errMachineOver) && !isClosedPipe(err) {
			r.inErr <- err
		}
	})
	return err
}

func (r *running) output(line int, name stream, to *os.File) error {
	from, fd, err := r.w.pipe(false)
	if err != nil {
		return err
	}
	r.w.line(line, "null", channel(fd))
	// A descriptor of our own: the runtime ends a program that writes to a closed
	// pipe on descriptor 1 or 2, and here that is the command's affair.
	own, err := sys.Dup(to)
	if err != nil {
		return err
	}
	r.w.closers = append(r.w.closers, own)
	r.pumps[name.String()] = newPump(from, own, func(err error) {
		if !isClosedPipe(err) {
			r.fault(fmt.Errorf("write the guest's %s: %w", name, err))
		}
		// The command sees it as it would on the host: its own pipe is closed.
		_ = r.link.send(message{Closed: name})
	})
	return nil
}

func (r *running) wireTerminal(s *spec, tty *os.File) (err error) {
	if r.term, err = newTerminal(tty, s.Streams[stdin] == asTerminal); err != nil {
		return err
	}
	s.Termios, s.Winsize = r.term.guestTermios(), r.term.size()
	shown, out, err := r.w.pipe(false)
	if err != nil {
		return err
	}
	r.w.line(lineTerminal, "null", channel(out))
	own, err := sys.Dup(tty)
	if err != nil {
		return err
	}
	r.w.closers = append(r.w.closers, own)
	r.pumps[asTerminal] = newPump(shown, own, func(err error) {
		r.fault(fmt.Errorf("write the terminal: %w", err))
	})
	return nil
}
