package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// procStat is what /proc/PID/stat says of a process.
type procStat struct {
	comm  string
	state byte // R, S, D, Z ...
	ppid  int
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The command may hold spaces and parentheses: it ends at the last one.
	s := string(b)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("/proc/%d/stat: no command in %q", pid, s)
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 2 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: too short: %q", pid, s)
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return procStat{comm: s[open+1 : end], state: f[0][0], ppid: ppid}, nil
}

// strangers gives those of the pids that are not of the caller's own process
// tree: the tree whose top is the caller's last ancestor among the pids. Where
// process 1 is among them, the cgroup is a container's, and all in it are its own.
func strangers(pids []int, self int) []int {
	in := make(map[int]bool, len(pids))
	for _, pid := range pids {
		in[pid] = true
	}
	foreign := in[0]
	if in[1] && !foreign {
		return nil
	}
	top := self
	for {
		p, err := readStat(top)
		if err != nil || !in[p.ppid] || p.ppid == 0 {
			break
		}
		top = p.ppid
	}
	var out []int
	for _, pid := range pids {
		if pid == 0 || !descends(pid, top) {
			out = append(out, pid)
		}
	}
	return out
}

// descends reports whether pid is top or comes from it. A process that is gone
// counts as one that does: it is nobody's any more.
func descends(pid, top int) bool {
	for pid != top {
		if pid <= 1 {
			return false
		}
		p, err := readStat(pid)
		if err != nil {
			return errors.Is(err, os.ErrNotExist)
		}
		pid = p.ppid
	}
	return true
}
