package e2e

import (
	"bytes"
	"fmt"

	"github.com/sandrun/sandrun/internal/hungry"
)

// A SpewChecker is an io.Writer that compares what it gets with what the hungry
// program spew writes, and keeps none of it.
type SpewChecker struct {
	size int64
	buf  []byte
	want []byte // what comes next
	next int64  // the line after want
	err  error
}

// Write never fails, so that the writer is not disturbed.
func (c *SpewChecker) Write(p []byte) (int, error) {
	n := len(p)
	if c.buf == nil {
		c.buf = make([]byte, 0, 1024*hungry.LineSize)
	}
	for len(p) > 0 && c.err == nil {
		if len(c.want) == 0 {
			for c.want = c.buf[:0]; len(c.want) < cap(c.buf); c.next++ {
				c.want = hungry.AppendLine(c.want, c.next)
			}
		}
		want := c.want[:min(len(p), len(c.want))]
		c.want = c.want[len(want):]
		if !bytes.Equal(p[:len(want)], want) {
			c.err = fmt.Errorf("in the %d bytes from byte %d: not what was written", len(want), c.size)
		}
		c.size += int64(len(want))
		p = p[len(want):]
	}
	return n, nil
}

// Done reports the first difference, or a wrong size.
func (c *SpewChecker) Done(size int64) error {
	if c.err == nil && c.size != size {
		return fmt.Errorf("%d bytes, want %d", c.size, size)
	}
	return c.err
}
