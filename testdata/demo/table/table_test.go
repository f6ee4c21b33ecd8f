package table

import (
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	got := Format([][]string{
		{"name", "größe", "note"},
		{"a", "1"},
		{"", "22", "two"},
	})
	want := "" +
		"name  größe  note\n" +
		"a     1\n" +
		"      22     two\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A table of 100,000 rows, about 20 MB with its text.
func TestLarge(t *testing.T) {
	rows := make([][]string, 100_000)
	for i := range rows {
		rows[i] = []string{"row", strings.Repeat("x", i%40), "end"}
	}
	for line := range strings.Lines(Format(rows)) {
		if len(line) != len("row  ")+39+len("  end\n") {
			t.Fatalf("line %q is %d bytes long", line, len(line))
		}
	}
}
