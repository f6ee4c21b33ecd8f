package supervisor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// At most slots workers run, never more than the budget is reserved, and all of
// any mix of sizes get their turn.
func TestAdmissionNeverOverbooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, budget, workers = 4, 100, 500
		a := &admission{slots: slots, budget: budget}
		var mu sync.Mutex
		var running, most int
		var reserved, highest int64
		rng := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		for range workers {
			bytes, work := rng.Int64N(budget)+1, time.Duration(rng.IntN(1000))*time.Millisecond
			wg.Go(func() {
				release, err := a.acquire(t.Context(), bytes)
				if err != nil {
					t.Errorf("acquire %d: %v", bytes, err)
					return
				}
				mu.Lock()
				running++
				reserved += bytes
				most, highest = max(most, running), max(highest, reserved)
				mu.Unlock()
				time.Sleep(work)
				mu.Lock()
				running--
				reserved -= bytes
				mu.Unlock()
				release()
				release() // a second call is harmless
			})
		}
		wg.Wait()
		if most != slots && highest < budget/2 {
			t.Errorf("at most %d ran and %d bytes were reserved: admission holds workers back", most, highest)
		}
		if most > slots || highest > budget {
			t.Errorf("%d workers at once with %d bytes; the machine has %d slots and %d bytes", most, highest, slots, budget)
		}
		if a.running != 0 || a.reserved != 0 || len(a.queue) != 0 {
			t.Errorf("left behind: %d running, %d bytes, %d queued", a.running, a.reserved, len(a.queue))
		}
	})
}

// A worker that needs the whole machine waits for those before it and is not
// overtaken by small ones that would fit beside them.
func TestAdmissionIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &admission{slots: 8, budget: 10}
		first, err := a.acquire(t.Context(), 6)
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, w := range []struct {
			name  string
			bytes int64
		}{{"large", 10}, {"small", 1}} {
			go func() {
				release, err := a.acquire(t.Context(), w.bytes)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, w.name)
				release()
			}()
			synctest.Wait()
		}
		if len(order) != 0 {
			t.Fatalf("%v did not wait", order)
		}
		first()
		synctest.Wait()
		if len(order) != 2 || order[0] != "large" {
			t.Errorf("order %v, want large first", order)
		}
	})
}

// A worker whose process ends while it waits leaves the queue, and what waited
// behind it moves up.
func TestAdmissionCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &admission{slots: 8, budget: 10}
		release, err := a.acquire(t.Context(), 6)
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("shim gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := a.acquire(ctx, 10)
			failed <- err
		}()
		synctest.Wait()
		behind := make(chan func(), 1)
		go func() {
			r, err := a.acquire(t.Context(), 2)
			if err != nil {
				t.Error(err)
			}
			behind <- r
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-failed; !errors.Is(err, gone) {
			t.Errorf("error %v, want the cause", err)
		}
		(<-behind)()
		release()
		if a.running != 0 || a.reserved != 0 || len(a.queue) != 0 {
			t.Errorf("left behind: %+v", a)
		}
	})
}

func TestAdmissionRefusesWhatNeverFits(t *testing.T) {
	a := &admission{slots: 1, budget: 10}
	if _, err := a.acquire(t.Context(), 11); err == nil {
		t.Error("a worker larger than the machine was admitted")
	}
}
