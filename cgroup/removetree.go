package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// RemoveTree kills and removes the tree of a run that is dead: dir is what
// Tree.Path gave. It refuses a directory that is not named as a tree is, one
// that is not on a cgroup2 file system, and one that the caller lives in. A tree
// that is not there is no error. It waits until ctx is done, at most RemoveWait (a
// second, when it is done before).
func RemoveTree(ctx context.Context, dir string) error {
	dir = path.Clean(dir)
	name := path.Base(dir)
	if _, ok := runOf(name); !ok || !path.IsAbs(dir) {
		return &FileError{Op: "remove", Path: dir, Err: errors.New("not the path of a run's tree"), Fix: "a tree is an absolute path that ends in " + Prefix + "<run>"}
	}
	s := site{path: path.Dir(dir), origin: path.Dir(dir)}
	parent, unlock, err := s.lock(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	fd, err := sys.OpenDirAt(parent, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &FileError{Op: "open", Path: dir, Err: err}
	}
	v2, err := sys.IsCgroup2(fd)
	_ = sys.CloseFD(fd)
	if err != nil || !v2 {
		return &FileError{Op: "remove", Path: dir, Err: errors.Join(errors.New("not on a cgroup2 file system"), err), Fix: "remove it by hand if it is yours"}
	}
	if inside, err := callerIn(dir); err != nil || inside {
		return &FileError{Op: "remove", Path: dir, Err: errors.Join(errors.New("this process lives in it"), err), Fix: "call it from outside the run"}
	}
	ctx, cancel := removal(ctx)
	defer cancel()
	if err := removeDir(ctx, parent, dir); err != nil {
		return err
	}
	return s.release(ctx, parent)
}

// callerIn reports whether the calling process is in the cgroup dir or below.
func callerIn(dir string) (bool, error) {
	h, err := findHierarchy()
	if err != nil {
		return false, fmt.Errorf("cannot tell whether this process lives there: %w", err)
	}
	own, err := h.self()
	if err != nil {
		return false, err
	}
	return strings.HasPrefix(own+"/", dir+"/"), nil
}
