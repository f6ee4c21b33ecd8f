package guest

import (
	"strings"
	"testing"
)

func TestConsoleKeepsTheEnd(t *testing.T) {
	c := &console{done: make(chan struct{})}
	c.follow(strings.NewReader(strings.Repeat("x", 3*consoleSize) + "the end\r\n"))
	if got := c.String(); len(got) > consoleSize || !strings.HasSuffix(got, "xthe end\n") {
		t.Errorf("%d bytes kept, ending in %q", len(got), got[len(got)-20:])
	}
}

func TestLastLines(t *testing.T) {
	console := "one\ntwo\nKernel panic\nCall Trace:\n [<6003e052>] dump_stack+0x1a/0x1c\n [<6003093f>] vpanic+0x11e/0x339\n"
	if got, want := lastLines(console, 3), "    two\n    Kernel panic\n    Call Trace:"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
