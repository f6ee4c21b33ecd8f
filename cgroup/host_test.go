package cgroup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchedEnv says that a process above watches the host's files.
const watchedEnv = "SANDRUN_CGROUP_TEST_WATCHED"

// touched is what a systemd that starts over the host's root would change: it
// writes its machine id, its stamps and its journal, creates users, rewrites
// mounts, and empties temporary directories, for which there are sentinels.
var touched = []string{
	"/etc/fstab", "/etc/machine-id", "/etc/hostname", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow",
	"/etc/mtab", "/etc/localtime", "/etc/.updated", "/etc/.pwd.lock", "/etc/resolv.conf", "/etc/systemd",
	"/var/.updated", "/var/lib/systemd", "/var/lib/dbus", "/var/lib/private", "/var/log/journal", "/var/log/wtmp", "/var/log/btmp",
	"/run/systemd", "/run/dbus", "/run/user", "/run/log", "/run/nologin",
}

// watchHost runs this test binary, which boots a guest for its tests, and fails
// it when a file of the host is not what it was.
func watchHost() int {
	code, err := func() (code int, err error) {
		sentinels, err := plant(os.TempDir(), "/var/tmp", "/dev/shm")
		defer func() {
			for _, dir := range sentinels {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}()
		if err != nil {
			return 1, err
		}
		paths := append(slices.Clone(touched), sentinels...)
		before, err := snapshot(paths)
		if err != nil {
			return 1, err
		}
		if code, err = runWatched(); err != nil {
			return 1, err
		}
		after, err := snapshot(paths)
		if err != nil {
			return 1, err
		}
		if changes := difference(before, after); len(changes) > 0 {
			return 1, fmt.Errorf("the tests changed the host:\n\t%s", strings.Join(changes, "\n\t"))
		}
		return code, nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	return code
}

func runWatched() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), watchedEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = c.Process.Signal(s)
		}
	}()
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// plant puts a directory with an old and a new file into each directory.
func plant(dirs ...string) (sentinels []string, err error) {
	for _, dir := range dirs {
		s, err := os.MkdirTemp(dir, "sandrun-sentinel-")
		if err != nil {
			return sentinels, err
		}
		sentinels = append(sentinels, s)
		for _, name := range []string{"old", "new"} {
			if err := os.WriteFile(filepath.Join(s, name), []byte(name), 0o644); err != nil {
				return sentinels, err
			}
		}
		year := time.Now().AddDate(-1, 0, 0)
		if err := os.Chtimes(filepath.Join(s, "old"), year, year); err != nil {
			return sentinels, err
		}
	}
	return sentinels, nil
}

// snapshot describes each path and all below it; what is not there is described so.
func snapshot(paths []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				m[path] = "not there"
				return nil
			}
			if errors.Is(err, fs.ErrPermission) {
				m[path] = "not readable"
				return nil
			}
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			m[path] = fmt.Sprintf("%v %v %d bytes", fi.Mode(), fi.ModTime().UTC(), fi.Size())
			if fi.Mode().IsRegular() {
				if b, err := os.ReadFile(path); err == nil {
					m[path] += fmt.Sprintf(" %x", sha256.Sum256(b))
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// difference tells the changes between two snapshots, a line each.
func difference(before, after map[string]string) []string {
	var out []string
	for path, was := range before {
		if is, ok := after[path]; !ok {
			out = append(out, path+" is gone")
		} else if is != was {
			out = append(out, fmt.Sprintf("%s was %s, is %s", path, was, is))
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			out = append(out, path+" is new")
		}
	}
	slices.Sort(out)
	return out
}

// The proof that nothing changed is worth what it would see.
func TestSnapshotSeesChanges(t *testing.T) {
	sentinels, err := plant(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := sentinels[0]
	paths := []string{dir, filepath.Join(dir, "absent")}
	for name, change := range map[string]func() error{
		"nothing":   func() error { return nil },
		"content":   func() error { return os.WriteFile(dir+"/new", []byte("neu"), 0o644) },
		"mode":      func() error { return os.Chmod(dir+"/old", 0o600) },
		"time":      func() error { return os.Chtimes(dir+"/old", time.Unix(1, 0), time.Unix(1, 0)) },
		"new file":  func() error { return os.WriteFile(dir+"/absent", nil, 0o644) },
		"lost file": func() error { return os.Remove(dir + "/old") },
	} {
		if err := errors.Join(os.WriteFile(dir+"/old", []byte("old"), 0o644), os.WriteFile(dir+"/new", []byte("new"), 0o644), os.RemoveAll(dir+"/absent")); err != nil {
			t.Fatal(err)
		}
		before, err := snapshot(paths)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		after, err := snapshot(paths)
		if err != nil {
			t.Fatal(err)
		}
		if changes := difference(before, after); (len(changes) > 0) != (name != "nothing") {
			t.Errorf("%s: %v", name, changes)
		}
	}
}
