package guest

import (
	"io"
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

// lastLines returns the last n lines of s, each indented.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "    " + strings.Join(lines, "\n    ")
}
