package limit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTake(t *testing.T) {
	now := time.Unix(0, 0)
	b := New(10, 2, now)
	for i := range 2 {
		if ok, _ := b.Take(now); !ok {
			t.Errorf("token %d of the burst is missing", i)
		}
	}
	ok, wait := b.Take(now)
	if ok || wait != 100*time.Millisecond {
		t.Errorf("third token: %v, wait %v; want a wait of 100ms", ok, wait)
	}
	if ok, _ := b.Take(now.Add(wait)); !ok {
		t.Error("no token after the wait")
	}
}

// Callers in real time get no more than the burst and the rate allow.
func TestRealTime(t *testing.T) {
	const rate, burst = 200, 10
	start := time.Now()
	b := New(rate, burst, start)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for now := start; now.Sub(start) < 100*time.Millisecond; now = time.Now() {
				ok, wait := b.Take(now)
				if ok {
					taken.Add(1)
				}
				time.Sleep(wait)
			}
		})
	}
	wg.Wait()
	most := burst + int64(time.Since(start).Seconds()*rate) + 1
	if n := taken.Load(); n < burst || n > most {
		t.Errorf("%d tokens, want %d to %d", n, burst, most)
	}
}
