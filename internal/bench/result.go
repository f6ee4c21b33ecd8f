package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Result is all that one bench measured.
type Result struct {
	Schema  int      `json:"schema"`
	Kernel  string   `json:"kernel"` // uname -r in the guest
	CPUs    int      `json:"cpus"`
	Rounds  int      `json:"rounds"`
	Burst   int      `json:"burst"`   // runs of each path in a round, back to back
	Paths   []Series `json:"paths"`   // in the guest; the first is the measure of the others
	Exec    Series   `json:"exec"`    // on the host
	Missing []string `json:"missing"` // what was not measured, and why
}

// A Series is one path's times, seconds: of a run in a round, or of a run.
type Series struct {
	Name   string  `json:"name"`
	What   string  `json:"what"` // is done in that time
	Runs   int     `json:"runs"`
	Median float64 `json:"median_seconds"`
	Min    float64 `json:"min_seconds"`
	P90    float64 `json:"p90_seconds"`
	// Ratio is Median over the median of fork+exec in the same guest, 0 on the host.
	Ratio float64 `json:"ratio,omitempty"`

	times []float64
}

// Names of the paths that check compares.
const (
	pathExec   = "fork+exec"
	pathLeaf   = "raw leaf"
	pathWorker = "sandrun worker"
	pathWall   = "sandrun worker, as its caller sees it"
	pathBwrap  = "bwrap"
	pathCrun   = "crun run"
	pathRunc   = "runc run"
)

// The goals of check.
const (
	maxRatio = 2.4 // of sandrun worker to fork+exec
	maxExec  = 0.3 // of sandrun exec --kernel guest, seconds
)

func (s *Series) add(d time.Duration) { s.times = append(s.times, d.Seconds()) }

// done computes what is reported of the times.
func (s Series) done() Series {
	sorted := slices.Sorted(slices.Values(s.times))
	s.Runs = len(sorted)
	s.Min = sorted[0]
	s.Median = quantile(sorted, 0.5)
	s.P90 = quantile(sorted, 0.9)
	return s
}

// quantile returns the value below which a part q of the sorted values lies,
// between two of them when it must.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i == len(sorted)-1 {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// String is the table that people read.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "guest kernel %s, %d CPU: one short program, %d rounds of all paths in turn, %d runs of each\n\n", r.Kernel, r.CPUs, r.Rounds, r.Burst)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "path\tmedian ms\tmin ms\tp90 ms\t× "+pathExec+"\twhat is done")
	for _, s := range r.Paths {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", s.Name, s.Median*1e3, s.Min*1e3, s.P90*1e3, s.Ratio, s.What)
	}
	_ = w.Flush() // to a strings.Builder, which takes all
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "not measured: %s\n", m)
	}
	if e := r.Exec; e.Runs > 0 {
		fmt.Fprintf(&b, "\non the host, %d runs: %s: median %.0f ms, min %.0f ms, p90 %.0f ms (%s)\n",
			e.Runs, e.Name, e.Median*1e3, e.Min*1e3, e.P90*1e3, e.What)
	}
	return b.String()
}

// check returns an error that names each goal that was missed. A path that was
// not measured is a goal that was missed.
func (r *Result) check() error {
	byName := make(map[string]Series, len(r.Paths))
	for _, s := range r.Paths {
		byName[s.Name] = s
	}
	worker, ok := byName[pathWorker]
	if !ok {
		return fmt.Errorf("check: %s was not measured", pathWorker)
	}
	var errs []error
	if worker.Ratio > maxRatio {
		errs = append(errs, fmt.Errorf("check: %s costs %.2f × %s, the goal is at most %.1f", pathWorker, worker.Ratio, pathExec, maxRatio))
	}
	for _, name := range []string{pathBwrap, pathCrun, pathRunc} {
		peer, ok := byName[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("check: %s was not measured", name))
		case peer.Median <= worker.Median:
			errs = append(errs, fmt.Errorf("check: %s takes %.2f ms, %s %.2f ms: the goal is to be ahead", name, peer.Median*1e3, pathWorker, worker.Median*1e3))
		}
	}
	if r.Exec.Runs == 0 {
		errs = append(errs, errors.New("check: sandrun exec --kernel guest was not measured"))
	} else if r.Exec.Median > maxExec {
		errs = append(errs, fmt.Errorf("check: %s takes %.0f ms, the goal is at most %.0f ms", r.Exec.Name, r.Exec.Median*1e3, maxExec*1e3))
	}
	return errors.Join(errs...)
}
