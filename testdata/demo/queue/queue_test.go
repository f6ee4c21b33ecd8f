package queue

import (
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// Checksums of 24 blocks of 1 MiB.
func TestOrder(t *testing.T) {
	jobs := make([][]byte, 24)
	for i := range jobs {
		jobs[i] = make([]byte, 1<<20)
		jobs[i][0] = byte(i)
	}
	got, err := Map(4, jobs, func(b []byte) ([32]byte, error) { return sha256.Sum256(b), nil })
	if err != nil {
		t.Fatal(err)
	}
	for i, sum := range got {
		if sum != sha256.Sum256(jobs[i]) {
			t.Errorf("result %d is of another job", i)
		}
	}
}

func TestFirstError(t *testing.T) {
	early, late := errors.New("early"), errors.New("late")
	_, err := Map(3, []int{0, 1, 2, 3}, func(i int) (int, error) {
		switch i {
		case 1:
			time.Sleep(20 * time.Millisecond)
			return 0, early
		case 3:
			return 0, late
		}
		return i, nil
	})
	if err != early {
		t.Errorf("got %v, want %v", err, early)
	}
}

func TestNeverMoreThanN(t *testing.T) {
	var now, peak atomic.Int32
	_, err := Map(3, make([]int, 12), func(int) (int, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		return 0, nil
	})
	if err != nil || peak.Load() != 3 {
		t.Errorf("at most %d at once, %v; want 3", peak.Load(), err)
	}
}
