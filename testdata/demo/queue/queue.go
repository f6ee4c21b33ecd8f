// Package queue runs jobs on a fixed number of goroutines and returns their
// results in the order of the jobs.
package queue

import "sync"

// Map calls f for each job, on n goroutines. If some calls fail, it returns the
// error of the first of them, by order of the jobs.
func Map[J, R any](n int, jobs []J, f func(J) (R, error)) ([]R, error) {
	results := make([]R, len(jobs))
	errs := make([]error, len(jobs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := range next {
				results[i], errs[i] = f(jobs[i])
			}
		})
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}
