package graph

import (
	"slices"
	"strconv"
	"testing"
)

func TestSort(t *testing.T) {
	got, err := Sort(map[string][]string{
		"test":    {"build"},
		"build":   {"fetch", "configure"},
		"package": {"build", "test"},
	})
	want := []string{"configure", "fetch", "build", "test", "package"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestCycle(t *testing.T) {
	_, err := Sort(map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b"}})
	if err == nil || err.Error() != "cycle: b → c → b" {
		t.Errorf("got %v", err)
	}
}

// 40,000 nodes, each of which needs up to three before it.
func TestLarge(t *testing.T) {
	const n = 40_000
	needs := make(map[string][]string, n)
	for i := range n {
		var before []string
		for _, d := range []int{1, 7, 100} {
			if i >= d {
				before = append(before, strconv.Itoa(i-d))
			}
		}
		needs[strconv.Itoa(i)] = before
	}
	order, err := Sort(needs)
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[string]int, n)
	for i, node := range order {
		at[node] = i
	}
	for node, before := range needs {
		for _, m := range before {
			if at[m] > at[node] {
				t.Fatalf("%s comes before %s, which it needs", node, m)
			}
		}
	}
}
