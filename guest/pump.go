package guest

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// A pump copies one line of the guest to a host file, byte for byte. A pipe from
// the guest has no end while its kernel lives: the pump ends when it has seen as
// many bytes as the guest says it has sent.
type pump struct {
	r, w *os.File // w may be nil: discard
	// broken is called once, when w takes no more; the rest is read and dropped.
	broken func(error)
	done   chan struct{}

	mu     sync.Mutex
	n      int64 // bytes read
	target int64 // bytes to read; -1 unknown
}

func newPump(r, w *os.File, broken func(error)) *pump {
	return &pump{r: r, w: w, broken: broken, done: make(chan struct{}), target: -1}
}

func (p *pump) run() {
	defer close(p.done)
	buf := make([]byte, 64<<10)
	w := p.w
	for {
		n, err := p.r.Read(buf)
		if n > 0 && w != nil {
			if _, err := w.Write(buf[:n]); err != nil {
				w = nil
				p.broken(err)
			}
		}
		p.mu.Lock()
		p.n += int64(n)
		complete := p.target >= 0 && p.n >= p.target
		p.mu.Unlock()
		// The deadline is only there to wake a reader that has all of it.
		if complete || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// expect says how many bytes the guest has sent in all.
func (p *pump) expect(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = total
	if p.n >= total {
		_ = p.r.SetReadDeadline(time.Now())
	}
}

// missing returns how many of the bytes that the guest has sent were not seen.
func (p *pump) missing() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target - p.n
}

// isClosedPipe reports whether a write failed because nobody reads any more.
func isClosedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
