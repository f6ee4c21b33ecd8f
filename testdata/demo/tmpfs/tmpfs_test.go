// Package tmpfs is a test that writes "to disk", where the disk is memory.
package tmpfs

import (
	"os"
	"testing"

	"example/internal/caps"
)

// TestSpool spools a quarter more than the cap to files in /dev/shm. Pages of a
// tmpfs are charged to the cgroup that first wrote them. The files have no name
// once they are open, so that nothing stays when the test is killed.
func TestSpool(t *testing.T) {
	size := caps.Memory(t) / 4 * 5
	const part = 16 << 20
	block := make([]byte, 1<<20)
	for written := int64(0); written < size; written += part {
		f, err := os.CreateTemp("/dev/shm", "sandrun-demo-")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
		for range part / len(block) {
			if _, err := f.Write(block); err != nil {
				t.Fatalf("after %d MiB: %v", written>>20, err)
			}
		}
	}
	t.Fatalf("%d bytes spooled: no cap stopped this test", size)
}
