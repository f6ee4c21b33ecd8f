// Package caps lets a dangerous test find out whether a cgroup v2 cap holds on
// it, and skip itself where none does.
package caps

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Above these a cap does not protect the machine from what the tests do.
const (
	maxMemory = 4 << 30 // bytes
	maxPids   = 4096    // tasks
)

// What the tests assume when the guard was taken away.
const (
	unsafeMemory = 1 << 30
	unsafePids   = 1024
)

// Memory returns the memory cap that holds on this process, bytes, and skips the
// test if there is none.
func Memory(t *testing.T) int64 { return need(t, "memory.max", maxMemory, unsafeMemory) }

// Pids returns the cap on tasks that holds on this process, and skips the test if
// there is none.
func Pids(t *testing.T) int64 { return need(t, "pids.max", maxPids, unsafePids) }

func need(t *testing.T, file string, most, assumed int64) int64 {
	t.Helper()
	if os.Getenv("SANDRUN_DEMO_UNSAFE") == "1" {
		return assumed
	}
	// go test remembers a passed test by the variables that it asked for. This one
	// differs in each run of sandrun, so that a skip is never taken from the cache.
	os.Getenv("SANDRUN_SOCK")
	limit, err := lowest(file)
	if err != nil {
		t.Skipf("skipped to protect this machine: %v", err)
	}
	if limit > most {
		t.Skipf("skipped to protect this machine: %s of this process is %s, the demo wants at most %d",
			file, describe(limit), most)
	}
	return limit
}

// lowest returns the lowest value of a cgroup v2 file from the cgroup of this
// process up to the root; all of them hold. MaxInt64 is "max".
func lowest(file string) (int64, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, err
	}
	const mount = "/sys/fs/cgroup"
	limit, found := int64(math.MaxInt64), false
	for line := range strings.Lines(string(own)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::") // the v2 hierarchy
		if !ok {
			continue
		}
		for dir := filepath.Join(mount, path); ; dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(dir, file))
			switch {
			case errors.Is(err, fs.ErrNotExist): // the root has no such file
			case err != nil:
				return 0, err
			default:
				found = true
				if s := strings.TrimSpace(string(b)); s != "max" {
					n, err := strconv.ParseInt(s, 10, 64)
					if err != nil {
						return 0, fmt.Errorf("%s/%s: %w", dir, file, err)
					}
					limit = min(limit, n)
				}
			}
			if len(dir) <= len(mount) {
				break
			}
		}
	}
	if !found {
		return 0, fmt.Errorf("no %s for this process below %s: it is in no cgroup v2 of its own", file, mount)
	}
	return limit, nil
}

func describe(limit int64) string {
	if limit == math.MaxInt64 {
		return "max"
	}
	return strconv.FormatInt(limit, 10)
}
