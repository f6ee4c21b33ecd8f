package kerneltest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A stock is what there is in the guest at one moment, each thing by a name that
// a reader of a failure understands.
type stock struct {
	processes, cgroups, mounts, files map[string]bool
}

// reapTime bounds how long what was killed may take to go.
const reapTime = 2 * time.Second

func takeStock() (s stock, err error) {
	if s.processes, err = processes(); err != nil {
		return s, err
	}
	if s.cgroups, err = cgroups("/sys/fs/cgroup"); err != nil {
		return s, err
	}
	if s.mounts, err = mounts(); err != nil {
		return s, err
	}
	s.files, err = openFiles()
	return s, err
}

// leaks names what is there now and was not before. Killed processes are reaped
// by process 1 and their cgroups emptied in the background: these get a moment.
func (s stock) leaks() ([]string, error) {
	for deadline := time.Now().Add(reapTime); ; time.Sleep(20 * time.Millisecond) {
		now, err := takeStock()
		if err != nil {
			return nil, err
		}
		var left []string
		for _, k := range []struct{ before, now map[string]bool }{
			{s.processes, now.processes}, {s.cgroups, now.cgroups}, {s.mounts, now.mounts}, {s.files, now.files},
		} {
			for name := range k.now {
				if !k.before[name] {
					left = append(left, name)
				}
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			slices.Sort(left)
			return left, nil
		}
	}
}

// processes lists every process but this one, process 1 and the kernel's threads.
func processes() (map[string]bool, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 2 || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has gone
		}
		// proc_pid_stat(5): pid (comm) state ppid ...; comm may hold anything.
		open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
		fields := strings.Fields(string(b[end+1:]))
		if open < 0 || end < open || len(fields) < 2 {
			return nil, fmt.Errorf("/proc/%d/stat: %q", pid, b)
		}
		if fields[1] == "2" { // of kthreadd
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		set[fmt.Sprintf("process %d (%s, state %s): %s", pid, b[open+1:end], fields[0],
			strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " ")))] = true
	}
	return set, nil
}

func cgroups(root string) (map[string]bool, error) {
	set := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) && path != root {
			return nil // it has gone
		}
		if err == nil && d.IsDir() {
			set["cgroup "+path] = true
		}
		return err
	})
	return set, err
}

func mounts() (map[string]bool, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		set["mount "+strings.TrimSpace(line)] = true
	}
	return set, nil
}

// openFiles lists this process's descriptors, but for those of the Go runtime's
// poller, which appear with the first use and stay.
func openFiles() (map[string]bool, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil: // the one that read the directory
		case target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]":
		default:
			set[fmt.Sprintf("file descriptor %s: %s", e.Name(), target)] = true
		}
	}
	return set, nil
}
