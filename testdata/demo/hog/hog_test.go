// Package hog is a test that needs more memory than it may have.
package hog

import (
	"syscall"
	"testing"

	"example/internal/caps"
)

// TestLoadModel "loads" a model that is a quarter larger than the cap. It is
// killed on the way; nothing else on the machine should notice.
func TestLoadModel(t *testing.T) {
	size := caps.Memory(t) / 4 * 5

	// One mapping, filled in one system call from its start to its end. In a guest
	// kernel that runs as a process (User Mode Linux), memory that is touched at
	// random costs the host one mapping a page, and those are limited.
	model, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_POPULATE)
	if err != nil {
		t.Fatalf("no memory for %d bytes: %v", size, err)
	}
	defer syscall.Munmap(model)
	t.Fatalf("%d bytes loaded: no cap stopped this test", size)
}

// TestVocabulary is what the package also tests; the memory of one test is the end of all.
func TestVocabulary(t *testing.T) {
	if words := []string{"the", "fox"}; len(words) != 2 {
		t.Error("lost a word")
	}
}
