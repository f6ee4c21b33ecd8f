package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MarshalJSON writes s as seconds with up to nine decimals.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds, to the nanosecond.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	var f float64
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	ns := f * float64(time.Second)
	if ns < -1<<63 || ns >= 1<<63 {
		return fmt.Errorf("%s seconds: more than a duration holds (292 years)", data)
	}
	if ns < 0 {
		*s = Seconds(ns - 0.5)
	} else {
		*s = Seconds(ns + 0.5)
	}
	return nil
}

// String writes s as FormatDuration does.
func (s Seconds) String() string { return FormatDuration(time.Duration(s)) }

// WriteJSON writes run as one indented JSON object. docs/json.md names every field.
func WriteJSON(w io.Writer, run *Run) error {
	// A reader may range over every list unasked: none is null.
	out := *run
	out.Command = list(run.Command)
	out.Workers = slices.Clone(list(run.Workers))
	for i := range out.Workers {
		out.Workers[i].Argv = list(out.Workers[i].Argv)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(&out)
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// errStdout refuses "-": the standard output is the command's own.
var errStdout = errors.New(`"-" is not a file here, because standard output belongs to the command (name a file, or /dev/stderr)`)

// CheckFile says before a run whether WriteFile will be able to write to path, so
// that a wrong name does not cost a whole run. It leaves nothing behind.
func CheckFile(path string) error {
	if path == "-" || path == "" {
		return fmt.Errorf("write the report to %q: %w", path, errStdout)
	}
	target, inPlace, err := resolve(path)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if inPlace {
		return nil // opening a pipe or a terminal could block or be seen: not before there is a report
	}
	f, err := createBeside(target)
	if err != nil {
		return fmt.Errorf("write the report to %s: %w (the directory must exist and be writable)", path, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// WriteFile writes run as JSON to path. A file is replaced in one step, so a reader
// sees the old report or the new one, never half of one; a link is followed. What is
// no regular file (a pipe, a terminal, /dev/stderr, /dev/fd/3) is written to as it is.
func WriteFile(path string, run *Run) (err error) {
	if path == "-" || path == "" {
		return fmt.Errorf("write the report to %q: %w", path, errStdout)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the report to %s: %w", path, err)
		}
	}()
	target, inPlace, err := resolve(path)
	if err != nil {
		return err
	}
	if inPlace {
		f, err := openInPlace(path)
		if err != nil {
			return err
		}
		return errors.Join(WriteJSON(f, run), f.Close())
	}
	f, err := createBeside(target)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(WriteJSON(f, run), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

// readerWait bounds the wait for somebody to read a pipe that is to be written to.
const readerWait = 2 * time.Second

// openInPlace opens what is no regular file. A plain open of a pipe waits for a reader
// for ever, and no interrupt ends it.
func openInPlace(path string) (*os.File, error) {
	for end := time.Now().Add(readerWait); ; time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
		if !errors.Is(err, syscall.ENXIO) {
			return f, err
		}
		if info, serr := os.Stat(path); serr != nil || info.Mode()&os.ModeNamedPipe == 0 {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("nobody has opened the pipe to read it for %v: %w (start its reader before the run)", readerWait, err)
		}
	}
}

// resolve follows the links of path and says whether it must be written in place:
// when it is no regular file, or names an open file through /dev or /proc, which a
// rename would cut off from those who hold it open.
func resolve(path string) (target string, inPlace bool, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", false, err
	}
	if strings.HasPrefix(abs, "/proc/") || strings.HasPrefix(abs, "/dev/") && !strings.HasPrefix(abs, "/dev/shm/") {
		return abs, true, nil
	}
	target, err = filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) {
		// A new file, or a link to one.
		link, readErr := os.Readlink(abs)
		if readErr != nil {
			return abs, false, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(abs), link)
		}
		return resolve(link)
	}
	if err != nil {
		return "", false, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", false, err
	}
	if info.IsDir() {
		return "", false, fmt.Errorf("%s is a directory (name a file in it)", path)
	}
	return target, !info.Mode().IsRegular(), nil
}

// createBeside makes a new file next to target, with the mode that target has or, for
// a new one, the umask gives (os.CreateTemp would make every report private).
func createBeside(target string) (*os.File, error) {
	mode := os.FileMode(0o666)
	info, statErr := os.Stat(target)
	if statErr == nil {
		mode = info.Mode().Perm()
	}
	name := fmt.Sprintf("%s.%d.tmp", filepath.Join(filepath.Dir(target), "."+filepath.Base(target)), os.Getpid())
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) { // left by a killed process that had our pid
		if err := os.Remove(name); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	}
	if err != nil {
		return nil, err
	}
	if statErr == nil {
		if err := f.Chmod(mode); err != nil { // against the umask
			return nil, errors.Join(err, f.Close(), os.Remove(name))
		}
	}
	return f, nil
}
