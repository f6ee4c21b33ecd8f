package supervisor

import (
	"context"
	"fmt"
	"sync"
)

// An admission decides when a worker may start: at most slots at once, and never
// more memory reserved than budget. It is first come, first served, so that a
// large worker is not overtaken for ever. It knows no sockets and no processes.
type admission struct {
	slots  int
	budget int64 // bytes

	mu       sync.Mutex
	running  int
	reserved int64 // bytes
	queue    []*ticket
}

type ticket struct {
	bytes    int64
	admitted chan struct{} // closed when it may start
}

// acquire waits until bytes fit and returns what gives them back. It fails when
// the context ends, or at once when bytes can never fit.
func (a *admission) acquire(ctx context.Context, bytes int64) (release func(), err error) {
	if bytes > a.budget {
		return nil, fmt.Errorf("a worker that reserves %d bytes can never start: the machine holds %d", bytes, a.budget)
	}
	t := &ticket{bytes: bytes, admitted: make(chan struct{})}
	a.mu.Lock()
	a.queue = append(a.queue, t)
	a.admit()
	a.mu.Unlock()

	select {
	case <-t.admitted:
	case <-ctx.Done():
		if a.leave(t) {
			return nil, context.Cause(ctx)
		}
		// It was admitted meanwhile; the caller sees the end of ctx soon enough.
	}
	return sync.OnceFunc(func() { a.release(bytes) }), nil
}

// admit lets the head of the queue in while it fits. a.mu is held.
func (a *admission) admit() {
	for len(a.queue) > 0 && a.running < a.slots && a.reserved+a.queue[0].bytes <= a.budget {
		t := a.queue[0]
		a.queue = a.queue[1:]
		a.running++
		a.reserved += t.bytes
		close(t.admitted)
	}
}

func (a *admission) release(bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	a.reserved -= bytes
	a.admit()
}

// leave takes a ticket out of the queue; false if it is no longer there.
func (a *admission) leave(t *ticket) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, q := range a.queue {
		if q == t {
			a.queue = append(a.queue[:i:i], a.queue[i+1:]...)
			a.admit() // the head may have been what did not fit
			return true
		}
	}
	return false
}
