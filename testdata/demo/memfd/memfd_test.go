// Package memfd is a test that fills a file which exists in memory only.
package memfd

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"example/internal/caps"
)

// memfdCreate is the number of memfd_create(2), which package syscall does not name.
var memfdCreate = map[string]uintptr{"amd64": 319, "arm64": 279}

// TestFrameBuffer fills frames of a quarter more than the cap. No file system
// shows this memory and no process has it mapped: only the cgroup knows whose it is.
func TestFrameBuffer(t *testing.T) {
	size := caps.Memory(t) / 4 * 5
	f := create(t)
	defer f.Close()
	frame := make([]byte, 8<<20)
	for written := int64(0); written < size; written += int64(len(frame)) {
		if _, err := f.Write(frame); err != nil {
			t.Fatalf("after %d MiB: %v", written>>20, err)
		}
	}
	t.Fatalf("%d bytes of frames: no cap stopped this test", size)
}

func create(t *testing.T) *os.File {
	t.Helper()
	number, ok := memfdCreate[runtime.GOARCH]
	if !ok {
		t.Skipf("the number of memfd_create on %s is not known here", runtime.GOARCH)
	}
	name := []byte("frames\x00")
	fd, _, errno := syscall.Syscall(number, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	if errno != 0 {
		t.Fatalf("memfd_create: %v", errno)
	}
	return os.NewFile(fd, "memfd:frames")
}
