package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// chunkSize is the most that one piece of stdin holds, in bytes.
const chunkSize = 1 << 20

// A feeder reads the host's stdin for the guest. It reads only what has come, so
// that it can be stopped at any moment and takes nothing after that.
type feeder struct {
	in   *os.File // a descriptor of our own
	fd   int
	pass func([]byte) error // brings input into the guest
	eof  func()             // says that there is no more
	fail func(error)        // told why the input ended before its end

	wakeR, wakeW *os.File // closed to stop
	stopOnce     sync.Once
	done         chan struct{}
	terminal     bool
	start        int64 // offset at first, of a regular file; otherwise -1
}

func newFeeder(f *os.File, pass func([]byte) error, eof func(), fail func(error)) (_ *feeder, err error) {
	fd := &feeder{pass: pass, eof: eof, fail: fail, done: make(chan struct{}), terminal: isTerminal(f), start: -1}
	if fd.in, err = sys.Dup(f); err != nil {
		return nil, err
	}
	if fd.wakeR, fd.wakeW, err = os.Pipe(); err != nil {
		_ = fd.in.Close()
		return nil, err
	}
	if st, err := fd.in.Stat(); err == nil && st.Mode().IsRegular() {
		if at, err := fd.in.Seek(0, io.SeekCurrent); err == nil {
			fd.start = at
		}
	}
	return fd, nil
}

// run reads until the end of the input, an error of pass, or stop. ready is asked
// before each read; while it says no, the input is someone else's.
func (f *feeder) run(ready func() bool) {
	defer close(f.done)
	var wake int
	_ = sys.Control(f.in, func(fd int) error { f.fd = fd; return nil })
	_ = sys.Control(f.wakeR, func(fd int) error { wake = fd; return nil })
	buf := make([]byte, chunkSize)
	for {
		readable, err := sys.WaitReadable(f.fd, wake)
		if err != nil || !readable {
			return
		}
		if !ready() {
			// There is input, for another job of the terminal; being made the
			// foreground job again raises no event.
			if f.stopped(200 * time.Millisecond) {
				return
			}
			continue
		}
		n, end, err := f.fill(buf)
		if n > 0 {
			if err := f.pass(buf[:n]); err != nil {
				f.fail(err)
				return
			}
		}
		if err != nil {
			f.fail(fmt.Errorf("read stdin: %w", err)) // the command must not see an early end
			return
		}
		if end {
			f.eof()
			return
		}
	}
}

// fill reads what is there, up to the size of buf; end says that nothing follows.
func (f *feeder) fill(buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		if n > 0 {
			if more, err := sys.ReadableNow(f.fd); err != nil || !more {
				return n, false, nil
			}
		}
		k, err := syscall.Read(f.fd, buf[n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return n, false, nil
		case err == syscall.EBADF || err == syscall.EISDIR: // write-only, as nohup makes it; a directory
			return n, true, nil
		case err == syscall.EIO && f.terminal: // it was hung up
			return n, true, nil
		case err != nil:
			return n, false, err
		case k == 0:
			return n, true, nil
		default:
			n += k
		}
	}
	return n, false, nil
}

func (f *feeder) stopped(d time.Duration) bool {
	_ = f.wakeR.SetReadDeadline(time.Now().Add(d))
	_, err := f.wakeR.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// stop ends the feeder; nothing is read after it returns, unless pass blocks.
func (f *feeder) stop() { f.stopOnce.Do(func() { _ = f.wakeW.Close() }) }

// giveBack sets a regular file to just behind what the command took.
func (f *feeder) giveBack(taken int64) {
	if f.start >= 0 {
		_, _ = f.in.Seek(f.start+taken, io.SeekStart)
	}
}

func (f *feeder) close() {
	_ = f.in.Close()
	_ = f.wakeR.Close()
	_ = f.wakeW.Close()
}

// chunks brings stdin into the guest as files of the share.
type chunks struct {
	dir     string
	link    *link
	credits chan struct{}
	quit    <-chan struct{}
	n       int
}

func newChunks(dir string, l *link, quit <-chan struct{}) *chunks {
	c := &chunks{dir: dir, link: l, quit: quit, credits: make(chan struct{}, chunkCredits)}
	for range chunkCredits {
		c.credits <- struct{}{}
	}
	return c
}

var errMachineOver = errors.New("the machine has ended")

func (c *chunks) pass(b []byte) error {
	select {
	case <-c.credits:
	case <-c.quit:
		return errMachineOver
	}
	c.n++
	if err := os.WriteFile(filepath.Join(c.dir, chunkFile(c.n)), b, 0o600); err != nil {
		return fmt.Errorf("pass stdin: %w", err)
	}
	return c.link.send(message{Chunk: c.n})
}

// consumed takes back the n-th piece.
func (c *chunks) consumed(n int) {
	_ = os.Remove(filepath.Join(c.dir, chunkFile(n)))
	select {
	case c.credits <- struct{}{}:
	default: // more than were given: not ours
	}
}
