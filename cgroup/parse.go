package cgroup

import (
	"bytes"
	"fmt"
	"math"
)

// parseValue reads a single-value file such as memory.peak; "max" is math.MaxInt64.
func parseValue(b []byte) (int64, error) {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	if string(b) == "max" {
		return math.MaxInt64, nil
	}
	return parseUint(b)
}

// parseUint reads decimal digits. A value above math.MaxInt64 becomes that: no
// counter of bytes, tasks or events means anything up there.
func parseUint(b []byte) (int64, error) {
	if len(b) == 0 {
		return 0, fmt.Errorf("%q is no number", b)
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is no number", b)
		}
		d := int64(c - '0')
		if v > (math.MaxInt64-d)/10 {
			return math.MaxInt64, nil
		}
		v = v*10 + d
	}
	return v, nil
}

// flatKeyed reads "key value" lines, as in memory.events and memory.stat, and
// calls set for each. It allocates nothing: the key is valid during the call.
func flatKeyed(b []byte, set func(key []byte, v int64)) error {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		key, value, ok := bytes.Cut(line, []byte{' '})
		if !ok {
			return fmt.Errorf("line %q is not 'key value'", line)
		}
		v, err := parseUint(value)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		set(key, v)
	}
	return nil
}
