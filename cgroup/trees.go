package cgroup

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A TreeRef is the tree of some run, found by its name.
type TreeRef struct {
	Path string // absolute directory under the cgroup2 mount
}

// Trees finds the trees of this user's runs (of everybody's, for root) by run id.
// It reads directory names only.
func Trees() (map[string]TreeRef, error) {
	h, err := findHierarchy()
	if err != nil {
		return nil, err
	}
	root := h.mount
	euid, found := os.Geteuid(), map[string]TreeRef{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went away, or is not ours to read
		}
		id, ok := strings.CutPrefix(d.Name(), Prefix)
		if !ok || path == root || strings.HasSuffix(id, ".scope") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fs.SkipDir
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && euid != 0 && int(st.Uid) != euid {
			return fs.SkipDir
		}
		found[id] = TreeRef{Path: path}
		return fs.SkipDir
	})
	return found, err
}

// aliveWhileYoung is how long a tree may be without its supervisor in it: the time
// between making the one and moving the other.
const aliveWhileYoung = 10 * time.Second

// Alive reports whether the tree's sandrun lives: it is in the tree's own leaf
// "supervisor".
func (t TreeRef) Alive() (bool, error) {
	info, err := os.Stat(t.Path)
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(filepath.Join(t.Path, supervisorName, "cgroup.events"))
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	if strings.Contains(string(b), "populated 1") {
		return true, nil
	}
	return time.Since(info.ModTime()) < aliveWhileYoung, nil
}
