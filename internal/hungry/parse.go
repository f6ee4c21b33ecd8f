package hungry

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// oneSize is for words whose only argument is a size.
func oneSize(args []string) (int64, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("%w: want SIZE, got %q", errUsage, args)
	}
	return parseSize(args[0])
}

// parseSize reads a number of bytes with an optional K, M or G of powers of 1024.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	for i, unit := range []string{"K", "M", "G"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			digits, shift = rest, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<40)>>shift {
		return 0, fmt.Errorf("%w: size %q: want 1 to 1024G", errUsage, s)
	}
	return n << shift, nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: count %q", errUsage, s)
	}
	return int(n), nil
}

func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%w: time %q: want one such as 500ms or 2s", errUsage, s)
	}
	return d, nil
}

// timeFirst takes a time off the front of args; something must follow.
func timeFirst(args []string) (time.Duration, []string, error) {
	if len(args) < 2 {
		return 0, nil, fmt.Errorf("%w: want TIME WORDS, got %q", errUsage, args)
	}
	d, err := parseTime(args[0])
	return d, args[1:], err
}
