package main

import (
	"errors"
	"fmt"
	"testing"
)

// What went wrong after the command is told beside its status, never instead of it.
func TestTold(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "[]"},
		{a, "[a]"},
		{fmt.Errorf("x: %w and %w", a, b), "[x: a and b]"},
		{exitStatus(3), "[]"},
		{errors.Join(exitStatus(3), nil), "[]"},
		{errors.Join(errors.Join(exitStatus(3), a), b), "[a b]"},
		{errors.Join(exitStatus(3), fmt.Errorf("x: %w and %w", a, b)), "[x: a and b]"},
	} {
		if got := fmt.Sprint(told(tt.err)); got != tt.want {
			t.Errorf("told(%v) = %s, want %s", tt.err, got, tt.want)
		}
	}
}
