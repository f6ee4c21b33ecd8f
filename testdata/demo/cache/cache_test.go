package cache

import (
	"sync"
	"testing"
)

func TestForgetsTheOldest(t *testing.T) {
	c := New[string, int](2)
	c.Put("a", 1)
	c.Put("b", 2)
	c.Get("a") // b is the oldest now
	c.Put("c", 3)
	if _, ok := c.Get("b"); ok {
		t.Error("b is still there")
	}
	if v, ok := c.Get("a"); !ok || v != 1 {
		t.Errorf("a is %d, %v", v, ok)
	}
}

// Pages of 16 KiB, 2,000 of them: about 32 MB.
func TestConcurrent(t *testing.T) {
	const max, pages, readers = 2000, 3000, 4
	c := New[int, []byte](max)
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for i := range pages {
				if b, ok := c.Get(i); ok {
					if b[0] != byte(i) {
						t.Errorf("page %d holds %d", i, b[0])
					}
					continue
				}
				b := make([]byte, 16<<10)
				b[0] = byte(i)
				c.Put(i, b)
			}
		})
	}
	wg.Wait()
	if c.Len() != max {
		t.Errorf("%d pages, want %d", c.Len(), max)
	}
}
