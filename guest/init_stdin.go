package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// A feed writes the pieces that the host puts into the share to the pipe that is
// the command's stdin, or to the master side of its terminal.
type feed struct {
	w      *os.File
	pipe   bool
	pieces chan int      // to be fed; closed at the end of the input
	quit   chan struct{} // closed when nobody reads any more
	done   chan struct{} // closed when run has returned

	written int64    // bytes; final when done is closed
	rest    *os.File // the pipe's other end, opened when w was closed
}

func newFeed(w *os.File) *feed {
	return &feed{
		w: w, pieces: make(chan int, chunkCredits+1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
}

func (f *feed) run(i *initProcess) {
	defer close(f.done)
	buf := make([]byte, chunkSize)
	for {
		select {
		case <-f.quit:
			return
		case n, ok := <-f.pieces:
			if !ok {
				if err := f.end(); err != nil {
					i.fail(err)
				}
				return
			}
			if !f.piece(i, n, buf) {
				return
			}
		}
	}
}

// piece feeds the n-th piece and reports whether more may follow.
func (f *feed) piece(i *initProcess, n int, buf []byte) bool {
	b, err := i.readPiece(n, buf)
	if err != nil {
		i.fail(err) // which ends the machine: the command must not see an early end
		return false
	}
	k, err := f.w.Write(b)
	f.written += int64(k)
	if err != nil {
		_ = i.link.send(message{StdinClosed: true})
		return false
	}
	return i.link.send(message{Chunk: n}) == nil
}

// end shows the command the end of a pipe. A reader of our own, which nobody
// reads from, keeps what the command leaves in the pipe to be counted.
func (f *feed) end() error {
	err := sys.Control(f.w, func(fd int) (err error) {
		f.rest, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		return err
	})
	return errors.Join(err, f.w.Close())
}

// taken returns how many bytes of a pipe were read, once there is no reader.
func (f *feed) taken() int64 {
	close(f.quit)
	<-f.done
	pipe := f.w
	if f.rest != nil {
		pipe = f.rest
	}
	unread := 0
	// Not known: then it counts as read.
	_ = sys.Control(pipe, func(fd int) (err error) {
		unread, err = sys.PendingInput(fd)
		return err
	})
	return f.written - int64(unread)
}

func (i *initProcess) readPiece(n int, buf []byte) ([]byte, error) {
	f, err := i.openShared(chunkFile(n))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	k, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read %s of the share: %w", chunkFile(n), err)
	}
	return buf[:k], nil
}
