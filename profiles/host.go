package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ReadHost reads the facts of this machine: /proc/meminfo, the processors that this
// process may run on, and the limits of the cgroups that it is in.
func ReadHost() (Host, error) { return readHost(os.DirFS("/"), runtime.NumCPU()) }

func readHost(root fs.FS, cpus int) (Host, error) {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return Host{}, fmt.Errorf("read the memory of this machine: %w", err)
	}
	h, err := parseMeminfo(string(b))
	if err != nil {
		return Host{}, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	h.CPUs = cpus
	h.readLimits(root)
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

// readLimits takes the smallest limits of the cgroups that this process is in. They
// only make the profile "host" smaller; what cannot be read is no limit, for a cap
// that does not fit is refused again where the cgroups are made.
func (h *Host) readLimits(root fs.FS) {
	cgroups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(cgroups)) {
		// "0::/path" for version 2, "5:memory:/path" for version 1.
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "":
			if mount, dir, ok := cgroupMount(string(mounts), "cgroup2", "", f[2]); ok {
				h.readV2(root, mount, dir)
			}
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			if mount, dir, ok := cgroupMount(string(mounts), "cgroup", "memory", f[2]); ok {
				h.readV1(root, path.Join(mount, dir))
			}
		}
	}
}

// cgroupMount finds where a hierarchy is mounted, and dir below that mount.
func cgroupMount(mounts, fstype, option, dir string) (mount, below string, ok bool) {
	for line := range strings.Lines(mounts) {
		left, right, found := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 5 || len(r) < 3 || r[0] != fstype {
			continue
		}
		if option != "" && !slices.Contains(strings.Split(r[2], ","), option) {
			continue
		}
		below, ok := strings.CutPrefix(dir, strings.TrimSuffix(l[3], "/"))
		if !ok || below != "" && below[0] != '/' {
			continue
		}
		return strings.Trim(l[4], "/"), strings.Trim(below, "/"), true
	}
	return "", "", false
}

// readV2 takes the limits of dir and of every cgroup above it.
func (h *Host) readV2(root fs.FS, mount, dir string) {
	for {
		at := path.Join(mount, dir)
		if n, ok := readLimit(root, path.Join(at, "memory.max")); ok {
			h.limit(n)
		}
		if n, ok := readLimit(root, path.Join(at, "memory.swap.max")); ok {
			if n == 0 {
				h.SwapLimit = -1
			} else if h.SwapLimit == 0 || h.SwapLimit > n {
				h.SwapLimit = n
			}
		}
		if b, err := fs.ReadFile(root, path.Join(at, "cpu.max")); err == nil {
			f := strings.Fields(string(b))
			if len(f) == 2 && f[0] != "max" {
				quota, err1 := strconv.ParseFloat(f[0], 64)
				period, err2 := strconv.ParseFloat(f[1], 64)
				if n := quota / period; err1 == nil && err2 == nil && n > 0 && !math.IsInf(n, 0) && (h.CPULimit == 0 || n < h.CPULimit) {
					h.CPULimit = n
				}
			}
		}
		if dir == "" || dir == "." {
			return
		}
		if dir = path.Dir(dir); dir == "." {
			dir = ""
		}
	}
}

// readV1 takes the limit that memory.stat of a version 1 cgroup says holds there.
func (h *Host) readV1(root fs.FS, at string) {
	b, err := fs.ReadFile(root, path.Join(at, "memory.stat"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "hierarchical_memory_limit "); ok {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				h.limit(n)
			}
		}
	}
}

// limit keeps the smallest memory limit; one above what the machine has is none.
func (h *Host) limit(n int64) {
	if n > 0 && n < h.Memory && (h.Limit == 0 || n < h.Limit) {
		h.Limit = n
	}
}

// readLimit reads a file that holds a number or "max".
func readLimit(root fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil && n >= 0
}
