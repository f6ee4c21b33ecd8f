// Package swapper is a test that works on more memory than it may have, round
// after round: with swap to use, it would make the whole machine crawl.
package swapper

import (
	"os"
	"syscall"
	"testing"

	"example/internal/caps"
)

// TestSimulation steps through a field that is a quarter larger than the cap.
// Each round needs every page again, the one that was used longest ago first:
// the worst case for a kernel that pages out what was not used for longest.
func TestSimulation(t *testing.T) {
	size := caps.Memory(t) / 4 * 5
	field, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
	if err != nil {
		t.Fatalf("no address space for %d bytes: %v", size, err)
	}
	defer syscall.Munmap(field)
	const rounds = 3
	for round := range rounds {
		for i := 0; i < len(field); i += os.Getpagesize() {
			field[i] = byte(round + 1)
		}
	}
	t.Fatalf("%d rounds over %d bytes: neither memory nor swap was capped", rounds, size)
}
