package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

const lockPoll = 100 * time.Millisecond

// lock takes the store for this process alone, and makes its directory if create
// is set. The lock is on the directory itself, so it leaves no file, and the
// kernel releases it when the process dies. A wait is bounded by ctx and told to log.
func (s Store) lock(ctx context.Context, create bool, log io.Writer) (unlock func(), err error) {
	told := false
	for {
		if create {
			if err := os.MkdirAll(s.Dir, 0o755); err != nil {
				return nil, err
			}
		}
		dir, err := os.Open(s.Dir)
		if create && errors.Is(err, fs.ErrNotExist) {
			continue // removed again at this very moment
		}
		if err != nil {
			return nil, err
		}
		err = sys.LockFD(int(dir.Fd()))
		switch {
		case err == nil && sameDirectory(dir, s.Dir):
			return func() { _ = dir.Close() }, nil
		case err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			_ = dir.Close()
			return nil, fmt.Errorf("lock %s: %w", s.Dir, err)
		}
		_ = dir.Close()
		if !told && log != nil {
			fmt.Fprintf(log, "waiting for another sandrun that is working in %s\n", s.Dir)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: another sandrun is working there: %w", s.Dir, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// sameDirectory reports whether dir, once locked, is still what is found at path:
// it may have been removed meanwhile.
func sameDirectory(dir *os.File, path string) bool {
	a, err := dir.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
