package store

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// 2,000 values of 4 KiB, written, closed and read again.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	text := strings.Repeat("v", 4<<10)
	for i := range n {
		if err := s.Put(strconv.Itoa(i), text+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range n {
		if got := s.Get(strconv.Itoa(i)); got != text+strconv.Itoa(i) {
			t.Fatalf("value %d is %q...", i, got[:min(len(got), 20)])
		}
	}
}

func TestHalfARecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, []byte(`{"Key":"a","Value":"1"}`+"\n"+`{"Key":"b","Va`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Get("a") != "1" || s.Get("b") != "" {
		t.Errorf("a is %q, b is %q", s.Get("a"), s.Get("b"))
	}
	if err := s.Put("c", "3"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Get("c") != "3" {
		t.Errorf("c is %q", s.Get("c"))
	}
}
