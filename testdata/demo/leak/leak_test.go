// Package leak is a test that forgets to let go of memory, a little at a time.
package leak

import (
	"syscall"
	"testing"
	"time"

	"example/internal/caps"
)

// session is what a server keeps for a client: too much, and for ever.
type session struct{ buffer []byte }

var sessions []session

// TestManySessions opens sessions until their buffers are a quarter more than the cap.
func TestManySessions(t *testing.T) {
	limit := caps.Memory(t)
	size := int(limit / 100)
	for opened := int64(0); opened < limit/4*5; opened += int64(size) {
		b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_POPULATE)
		if err != nil {
			t.Fatalf("session %d: %v", len(sessions), err)
		}
		sessions = append(sessions, session{b})
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d sessions open: no cap stopped this test", len(sessions))
}
