package parser

import (
	"strings"
	"testing"
)

func TestEval(t *testing.T) {
	tests := []struct {
		in   string
		want float64
	}{
		{"1", 1},
		{"1 + 2*3", 7},
		{"(1+2) * 3", 9},
		{"8/4/2", 1},
		{"-(2-5)", 3},
		{"2*-3.5", -7},
	}
	for _, tt := range tests {
		if got, err := Eval(tt.in); err != nil || got != tt.want {
			t.Errorf("Eval(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":      "column 1: want a number",
		"1+":    "column 3: want a number",
		"(1":    "column 3: missing )",
		"1 2":   `column 3: unexpected '2'`,
		"1+(*)": "column 4: want a number",
	} {
		if _, err := Eval(in); err == nil || err.Error() != want {
			t.Errorf("Eval(%q): %v; want %s", in, err, want)
		}
	}
}

// A long sum, 16 MB of source.
func TestLong(t *testing.T) {
	const n = 4 << 20
	got, err := Eval("0" + strings.Repeat(" + 1", n))
	if err != nil || got != n {
		t.Errorf("got %v, %v; want %d", got, err, n)
	}
}
