package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A report that only the guest could see is refused, however its place is written.
func TestSeenOutside(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/run", filepath.Join(dir, "link")); err != nil {
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
	} {
		if err := seenOutside(file); (err == nil) != seen {
			t.Errorf("%q: %v, want seen outside: %v", file, err, seen)
		}
	}
}
