package supervisor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sandrun/sandrun/internal/sys"
)

// A RunDir is the private directory of one run, and the proof that the run is
// alive: the kernel drops its lock with the last process that has it open, by
// whatever death. Everything that a run writes on disk for itself is in it.
type RunDir struct {
	ID   string // of the run
	Path string
	lock *os.File
}

// lockName is the file whose lock says that the run lives.
const lockName = "lock"

// baseDir is where the directories of this user's runs are.
func baseDir() string {
	if os.Geteuid() == 0 {
		return "/run/sandrun"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return filepath.Join(dir, "sandrun")
		}
	}
	return filepath.Join(os.TempDir(), "sandrun-"+strconv.Itoa(os.Geteuid()))
}

// lockBase creates the base directory and locks it, so that no run is taken for
// dead while it is being made. Others may pass through it, not list it: a command
// that runs as another user reaches its socket.
func lockBase() (path string, unlock func() error, err error) {
	path = baseDir()
	for {
		if err := os.Mkdir(path, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", nil, fmt.Errorf("make the directory of runs: %w (set XDG_RUNTIME_DIR or TMPDIR to a directory of yours)", err)
		}
		if err := sys.OwnedDir(path); err != nil {
			return "", nil, fmt.Errorf("the directory of runs: %w (set XDG_RUNTIME_DIR or TMPDIR to a directory of yours)", err)
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last run took it away meanwhile
		}
		if err != nil {
			return "", nil, err
		}
		if err := sys.LockFile(f); err != nil {
			return "", nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(path); err == nil {
			if was, err := f.Stat(); err == nil && os.SameFile(was, now) {
				return path, f.Close, nil
			}
		}
		_ = f.Close()
	}
}

// NewRunDir makes the directory of a new run, for a command that runs as owner.
func NewRunDir(owner int) (dir *RunDir, err error) {
	base, unlock, err := lockBase()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%x", random)
	d := &RunDir{ID: id, Path: filepath.Join(base, id)}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(d.Path))
		}
	}()
	if err := os.Chown(d.Path, owner, -1); err != nil {
		return nil, err
	}
	d.lock, err = os.OpenFile(filepath.Join(d.Path, lockName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := sys.LockFile(d.lock); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// Close removes the directory, and that of all runs with the last one.
func (d *RunDir) Close() error {
	base, unlock, err := lockBase()
	if err != nil {
		return err
	}
	err = errors.Join(os.RemoveAll(d.Path), d.lock.Close())
	_ = os.Remove(base) // it stays while other runs are in it
	return errors.Join(err, unlock())
}
