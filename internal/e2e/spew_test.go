package e2e

import (
	"testing"

	"github.com/sandrun/sandrun/internal/hungry"
)

// The checker must see what it is there for.
func TestSpewChecker(t *testing.T) {
	var all []byte
	for i := range int64(3000) {
		all = hungry.AppendLine(all, i)
	}
	tests := []struct {
		name  string
		spoil func([]byte) []byte
		ok    bool
	}{
		{"exact", func(b []byte) []byte { return b }, true},
		{"one byte changed", func(b []byte) []byte { b[100_000] ^= 1; return b }, false},
		{"one byte lost", func(b []byte) []byte { return append(b[:5000], b[5001:]...) }, false},
		{"one byte lost at the end", func(b []byte) []byte { return b[:len(b)-1] }, false},
		{"one line twice", func(b []byte) []byte { return append(b, b[len(b)-hungry.LineSize:]...) }, false},
		{"nothing", func([]byte) []byte { return nil }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c SpewChecker
			b := tt.spoil(append([]byte(nil), all...))
			for n := 1; len(b) > 0; n = n*3%70_001 + 1 { // pieces of all sizes
				n = min(n, len(b))
				if got, err := c.Write(b[:n]); got != n || err != nil {
					t.Fatalf("Write: %d, %v", got, err)
				}
				b = b[n:]
			}
			if err := c.Done(int64(len(all))); (err == nil) != tt.ok {
				t.Errorf("Done: %v", err)
			}
		})
	}
}
