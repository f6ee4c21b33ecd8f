package profiles

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ReadHost reads the facts of this machine from /proc/meminfo and the processors
// that this process may use. The cgroup limits are the caller's to fill in.
func ReadHost() (Host, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Host{}, fmt.Errorf("read the memory of this machine: %w", err)
	}
	h, err := parseMeminfo(string(b))
	if err != nil {
		return Host{}, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	h.CPUs = runtime.NumCPU()
	return h, nil
}

// parseMeminfo takes MemTotal and SwapTotal (kB, which the kernel means as KiB).
func parseMeminfo(s string) (Host, error) {
	var h Host
	for line := range strings.Lines(s) {
		key, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch key {
		case "MemTotal":
			to = &h.Memory
		case "SwapTotal":
			to = &h.Swap
		default:
			continue
		}
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			return Host{}, fmt.Errorf("%s is %q, not a number of kB", key, strings.TrimSpace(rest))
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || n < 0 || n > 1<<52 {
			return Host{}, fmt.Errorf("%s is %q, not a number of kB", key, strings.TrimSpace(rest))
		}
		*to = n << 10
	}
	if h.Memory == 0 {
		return Host{}, errors.New("it has no MemTotal")
	}
	return h, nil
}
