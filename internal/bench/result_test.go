package main

import (
	"strings"
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	var s Series
	for _, ms := range []int{5, 1, 4, 2, 3, 6, 7, 8, 9, 10, 11} {
		s.add(time.Duration(ms) * time.Millisecond)
	}
	s = s.done()
	if s.Runs != 11 || s.Min != 0.001 || s.Median != 0.006 || s.P90 != 0.010 {
		t.Errorf("got %+v; want 11 runs, min 1 ms, median 6 ms, p90 10 ms", s)
	}
}

func TestQuantile(t *testing.T) {
	tests := []struct {
		sorted  []float64
		q, want float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 0.9, 7},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 3, 4}, 0.5, 2.5},
		{[]float64{0, 10}, 0.9, 9},
		{[]float64{0, 10}, 1, 10},
	}
	for _, tt := range tests {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", tt.sorted, tt.q, got, tt.want)
		}
	}
}

// good is a result that meets every goal, only just.
func good() *Result {
	return &Result{
		Kernel: "7.2.0", CPUs: 1, Rounds: 40, Burst: 5,
		Paths: []Series{
			{Name: pathExec, Median: 0.003, Ratio: 1},
			{Name: pathWorker, Median: 0.0072, Ratio: 2.4},
			{Name: pathBwrap, Median: 0.0073, Ratio: 2.43},
			{Name: pathCrun, Median: 0.038},
			{Name: pathRunc, Median: 0.1},
		},
		Exec: Series{Name: "sandrun exec", Runs: 15, Median: 0.3},
	}
}

func TestCheck(t *testing.T) {
	if err := good().check(); err != nil {
		t.Errorf("a good result: %v", err)
	}
	tests := []struct {
		spoil func(*Result)
		want  string
	}{
		{func(r *Result) { r.Paths[1].Ratio = 2.41 }, "sandrun worker costs 2.41 × fork+exec, the goal is at most 2.4"},
		{func(r *Result) { r.Paths[2].Median = 0.0072 }, "bwrap takes 7.20 ms, sandrun worker 7.20 ms"},
		{func(r *Result) { r.Paths[4].Median = 0.001 }, "runc run takes 1.00 ms"},
		{func(r *Result) { r.Paths = r.Paths[:4] }, "runc run was not measured"},
		{func(r *Result) { r.Paths[1].Name = "?" }, "sandrun worker was not measured"},
		{func(r *Result) { r.Exec = Series{} }, "sandrun exec --kernel guest was not measured"},
		{func(r *Result) { r.Exec.Median = 0.301 }, "sandrun exec takes 301 ms, the goal is at most 300 ms"},
	}
	for _, tt := range tests {
		r := good()
		tt.spoil(r)
		if err := r.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want ...%s...", err, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	r := good()
	r.Missing = []string{"crun run: not installed"}
	got := r.String()
	for _, want := range []string{
		"guest kernel 7.2.0, 1 CPU: one short program, 40 rounds of all paths in turn, 5 runs of each",
		"\nsandrun worker  7.20       0.00    0.00    2.40",
		"\nnot measured: crun run: not installed\n",
		"on the host, 15 runs: sandrun exec: median 300 ms",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
