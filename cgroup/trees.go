package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// A TreeRef is a run's tree that somebody made, found by its name.
type TreeRef struct {
	Run  string // the run's id
	Path string // absolute directory of sandrun-<run>
}

// Trees finds the trees of all runs, dead or alive, by run id, in the part of
// the hierarchy that this process sees. Without a cgroup2 hierarchy that could
// hold one the error is ErrNotSupported.
func Trees() (map[string]TreeRef, error) {
	h, err := findHierarchy()
	if err != nil {
		return nil, err
	}
	trees := make(map[string]TreeRef)
	err = filepath.WalkDir(h.mount, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
			return fs.SkipDir // removed meanwhile, or nobody's business
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		if run, ok := runOf(d.Name()); ok {
			trees[run] = TreeRef{Run: run, Path: path}
		}
		return nil
	})
	if err != nil {
		return nil, &FileError{Op: "read", Path: h.mount, Err: err}
	}
	return trees, nil
}

// runOf gives the run whose tree has this name. A scope of systemd that holds a
// tree is named after the run too, and is none.
func runOf(name string) (run string, ok bool) {
	run, ok = strings.CutPrefix(name, Prefix)
	if !ok || run == "" || name == outerName || strings.HasSuffix(name, scopeSuffix) || checkName(name) != nil {
		return "", false
	}
	return run, true
}

// Alive reports whether the run's own process still is in its tree. It waits for
// a run that is just entering or leaving, for some seconds at most.
func (r TreeRef) Alive() (bool, error) {
	s := site{path: filepath.Dir(r.Path)}
	dir, unlock, err := s.lock(context.Background())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	fd, err := sys.OpenDirAt(dir, filepath.Base(r.Path)+"/"+supervisorName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, &FileError{Op: "open", Path: r.Path + "/" + supervisorName, Err: err}
	}
	defer func() { _ = sys.CloseFD(fd) }()
	pids, err := ownProcs(fd, r.Path+"/"+supervisorName)
	return len(pids) > 0, err
}
