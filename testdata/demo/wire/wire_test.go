package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	sizes := []int{0, 1, 4096, 1 << 20, MaxFrame}
	for _, n := range sizes {
		if err := Write(&buf, bytes.Repeat([]byte{byte(n + 1)}, n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range sizes {
		data, err := Read(&buf)
		if err != nil || len(data) != n || n > 0 && data[n-1] != byte(n+1) {
			t.Errorf("frame of %d bytes: got %d, %v", n, len(data), err)
		}
	}
	if _, err := Read(&buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestDamage(t *testing.T) {
	var buf bytes.Buffer
	if err := Write(&buf, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	for n := 1; n < len(whole); n++ {
		if _, err := Read(bytes.NewReader(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	whole[len(whole)-1] ^= 1
	if _, err := Read(bytes.NewReader(whole)); !errors.Is(err, ErrChecksum) {
		t.Errorf("one bit changed: %v", err)
	}
	if err := Write(io.Discard, make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame that is too large was written")
	}
}
