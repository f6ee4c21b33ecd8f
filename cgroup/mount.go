package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// hierarchy is the cgroup2 mount that this process sees.
type hierarchy struct {
	mount string // absolute mount point
	root  string // the cgroup that is mounted there, relative to our cgroup namespace; "/" as a rule
	// memoryV1 is where cgroup v1 has the memory controller; empty when v2 may have it.
	memoryV1 string
	readOnly bool
}

// findHierarchy looks for the cgroup2 mount in /proc/self/mountinfo.
func findHierarchy() (hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, err
	}
	return parseMountinfo(string(b))
}

// parseMountinfo reads mountinfo lines; proc_pid_mountinfo(5). Of several
// cgroup2 mounts the last one that is mounted whole and writable counts.
func parseMountinfo(s string) (hierarchy, error) {
	var best hierarchy
	found, rank := false, -1
	memoryV1 := ""
	for line := range strings.Lines(s) {
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(t) < 3 {
			return hierarchy{}, fmt.Errorf("/proc/self/mountinfo: %q is no mount", line)
		}
		switch t[0] {
		case "cgroup":
			if hasOption(t[2], "memory") {
				memoryV1 = unescape(f[4])
			}
		case "cgroup2":
			h := hierarchy{root: unescape(f[3]), mount: unescape(f[4]), readOnly: hasOption(f[5], "ro") || hasOption(t[2], "ro")}
			r := 0
			if h.root == "/" {
				r += 2
			}
			if !h.readOnly {
				r++
			}
			if r >= rank {
				best, rank, found = h, r, true
			}
		}
	}
	best.memoryV1 = memoryV1
	switch {
	case !found && memoryV1 != "":
		return best, fmt.Errorf("cgroup v1 only: the memory controller is bound to v1 at %s: %w (boot with systemd.unified_cgroup_hierarchy=1, or use the guest kernel: --kernel guest)", memoryV1, ErrNotSupported)
	case !found:
		return best, fmt.Errorf("no cgroup2 file system is mounted: %w (mount -t cgroup2 cgroup2 /sys/fs/cgroup)", ErrNotSupported)
	case memoryV1 != "":
		return best, fmt.Errorf("cgroup v1 hybrid: the memory controller is bound to v1 at %s: %w (boot with systemd.unified_cgroup_hierarchy=1, or use the guest kernel: --kernel guest)", memoryV1, ErrNotSupported)
	}
	return best, nil
}

// self is the absolute directory of this process's own cgroup.
func (h hierarchy) self() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return h.dir(string(b))
}

// dir finds the v2 line of /proc/PID/cgroup under the mount.
func (h hierarchy) dir(cgroup string) (string, error) {
	for line := range strings.Lines(cgroup) {
		p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		p = strings.TrimSuffix(p, " (deleted)")
		if strings.HasPrefix(p, "/..") {
			return "", fmt.Errorf("/proc/self/cgroup says %s: this process is outside its cgroup namespace: %w (start it inside, or without a cgroup namespace)", p, ErrNotSupported)
		}
		if h.root == "/" {
			return path.Join(h.mount, p), nil
		}
		if rest, ok := strings.CutPrefix(p+"/", h.root+"/"); ok {
			return path.Join(h.mount, rest), nil
		}
		return "", fmt.Errorf("this process's cgroup %s is not under %s, which is what %s shows: %w (mount cgroup2 anew in this cgroup namespace)", p, h.root, h.mount, ErrNotSupported)
	}
	return "", errors.New("/proc/self/cgroup has no cgroup v2 line (0::)")
}

func hasOption(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of mountinfo (space, tab, newline, backslash).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}
