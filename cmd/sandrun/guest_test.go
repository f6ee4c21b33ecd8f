package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// A report that only the guest could see is refused, however its place is written.
func TestSeenOutside(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join("/dev/shm", filepath.Base(t.TempDir())+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(elsewhere) }()
	if err := os.Symlink(elsewhere, filepath.Join(dir, "linked.json")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for file, seen := range map[string]bool{
		"":                   true,
		"r.json":             true,
		dir + "/r.json":      true,
		"/runner.json":       true,
		"/run/r.json":        false,
		"/dev/shm/r.json":    false,
		"link/r.json":        false,
		"/usr/../run/r.json": false,
		"/dev/stderr":        true,
		"/dev/fd/2":          true,
		"pipe":               false, // nobody in the guest reads it
		"linked.json":        false,
	} {
		if err := seenOutside(file); (err == nil) != seen {
			t.Errorf("%q: %v, want seen outside: %v", file, err, seen)
		}
	}
}
