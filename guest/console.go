package guest

import (
	"io"
	"slices"
	"strings"
	"sync"
)

// consoleSize is how much of the console is kept, in bytes.
const consoleSize = 64 << 10

// A console keeps the last part of what the guest kernel printed.
type console struct {
	mu   sync.Mutex
	tail []byte
	done chan struct{} // closed at the end of the console
}

// follow reads r to its end.
func (c *console) follow(r io.Reader) {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		c.mu.Lock()
		c.tail = append(c.tail, buf[:n]...)
		if extra := len(c.tail) - consoleSize; extra > 0 {
			c.tail = append(c.tail[:0], c.tail[extra:]...)
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(string(c.tail), "\r\n", "\n")
}

// traceLine reports whether a line is of a kernel's call trace, such as
// " [<6003e052>] dump_stack+0x1a/0x1c".
func traceLine(line string) bool { return strings.HasPrefix(strings.TrimLeft(line, " "), "[<") }

// lastLines returns the last n lines of a console, each indented, without the
// call traces, which hide what they follow.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	lines = slices.DeleteFunc(lines, traceLine)
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "    " + strings.Join(lines, "\n    ")
}
