// Package graph puts tasks in an order in which each comes after what it needs.
package graph

import (
	"fmt"
	"slices"
	"strings"
)

// Sort orders the nodes of needs, which maps each to those that come before it.
// Equal choices are taken by name. A cycle is an error that names it.
func Sort(needs map[string][]string) ([]string, error) {
	const (
		fresh = iota
		open
		done
	)
	state := make(map[string]int, len(needs))
	var order, path []string
	var visit func(string) error
	visit = func(n string) error {
		switch state[n] {
		case done:
			return nil
		case open:
			cycle := append(path[slices.Index(path, n):], n)
			return fmt.Errorf("cycle: %s", strings.Join(cycle, " → "))
		}
		state[n] = open
		path = append(path, n)
		for _, m := range slices.Sorted(slices.Values(needs[n])) {
			if err := visit(m); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		state[n] = done
		order = append(order, n)
		return nil
	}
	names := make([]string, 0, len(needs))
	for n := range needs {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}
