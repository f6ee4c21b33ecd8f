package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/internal/sys"
)

// runID matches the name of a run's directory, and no other of sandrun's.
var runID = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Collect removes what runs whose process is gone have left: their processes,
// cgroups, sockets and files. It never touches a run that lives: that one holds
// the lock of its directory. It returns the ids of the runs it cleared.
func Collect(ctx context.Context) (cleared []string, err error) {
	base, unlock, err := lockBase()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, err
	}
	// Trees are looked up by their name: a run that died between making its tree
	// and noting it has left no note.
	trees, err := cgroup.Trees()
	if err != nil && !errors.Is(err, cgroup.ErrNotSupported) {
		return nil, err
	}
	var failures []error
	for _, e := range entries {
		if !runID.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(base, e.Name())
		dead, lock, err := isDead(path)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		tree, found := trees[e.Name()]
		if dead && lock == nil && found { // or a cleaner of temporary files took the lock's file
			alive, err := tree.Alive()
			if err != nil {
				failures = append(failures, err)
			}
			dead = !alive && err == nil
		}
		if !dead {
			delete(trees, e.Name())
			continue
		}
		err = collectRun(ctx, path, tree)
		delete(trees, e.Name())
		if lock != nil {
			_ = lock.Close()
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("run %s: %w", e.Name(), err))
			continue
		}
		cleared = append(cleared, e.Name())
	}
	// Trees without a directory: a reboot of nothing but /run, or a cleaner of
	// temporary files. A live run's own process is in its tree.
	for id, tree := range trees {
		if alive, err := tree.Alive(); alive || err != nil {
			continue
		}
		err := cgroup.RemoveTree(ctx, tree.Path)
		if errors.Is(err, fs.ErrPermission) {
			continue // another user's, who can
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("run %s: %w", id, err))
			continue
		}
		cleared = append(cleared, id)
	}
	_ = os.Remove(base) // it stays while runs are in it
	return cleared, errors.Join(failures...)
}

// isDead reports whether nobody holds the lock of a run's directory; the lock is
// then the caller's, until closed.
func isDead(path string) (dead bool, lock *os.File, err error) {
	lock, err = os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil, nil // it died while it was made: the base is locked, so nobody is making it
	}
	if err != nil {
		return false, nil, err
	}
	dead, err = sys.TryLock(lock)
	if !dead || err != nil {
		return false, nil, errors.Join(err, lock.Close())
	}
	return true, lock, nil
}

// collectRun removes one dead run, its directory last: until then it can be found.
func collectRun(ctx context.Context, path string, tree cgroup.TreeRef) error {
	if tree.Path != "" {
		if err := cgroup.RemoveTree(ctx, tree.Path); err != nil {
			return err
		}
	}
	return os.RemoveAll(path)
}
