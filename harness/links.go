package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LinkDir makes the directory of multi-call links that Adapter.Env points to, and
// returns it. Its name is a function of self (the absolute path of this sandrun) and
// of caps (any text that says what a worker may take), and of nothing else:
//
//   - The path of the -exec program is part of the key of cmd/go's test cache, so it
//     must be the same in the next run for `(cached)` to come back.
//   - A result that was had under looser caps says nothing about tighter ones, so
//     other caps get another path.
//   - Two sandruns installed side by side never run each other's binary.
//
// It is made in the user's cache directory, else in the runtime directory, else in a
// private directory under /tmp; the first that can be had and whose path needs no
// quoting in GOFLAGS.
func LinkDir(environ []string, self, caps string) (string, error) {
	sum := sha256.Sum256([]byte(self + "\x00" + caps))
	name := hex.EncodeToString(sum[:8])
	var refused []error
	for _, root := range linkRoots(environ) {
		dir := filepath.Join(root, name)
		err := Links(dir, self)
		if err == nil {
			return dir, nil
		}
		refused = append(refused, err)
	}
	return "", fmt.Errorf("no directory for the links that test runners start workers by (set XDG_CACHE_HOME to a directory of yours): %w",
		errors.Join(refused...))
}

// linkRoots are the directories in which LinkDir tries to make its own, best first.
func linkRoots(environ []string) []string {
	var roots []string
	if dir := getenv(environ, "XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		roots = append(roots, filepath.Join(dir, "sandrun", "links"))
	} else if home := getenv(environ, "HOME"); filepath.IsAbs(home) {
		roots = append(roots, filepath.Join(home, ".cache", "sandrun", "links"))
	}
	if dir := getenv(environ, "XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		roots = append(roots, filepath.Join(dir, "sandrun", "links"))
	}
	return append(roots, filepath.Join("/tmp", "sandrun-"+strconv.Itoa(os.Getuid()), "links"))
}

// Links makes dir, and in it one symbolic link to self for each of Names. Links that
// are there already are replaced in one step, so any number of runs may do this at
// once. It refuses a directory that another user owns or could write to: whoever can
// change the links chooses what the tests run.
func Links(dir, self string) error {
	if !filepath.IsAbs(dir) || !filepath.IsAbs(self) {
		return fmt.Errorf("link %s to %s: both must be absolute", dir, self)
	}
	if err := plainPath(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range Names {
		if err := link(dir, name, self); err != nil {
			return err
		}
	}
	return nil
}

// link makes dir/name a link to self, by way of a new link that is renamed over it.
func link(dir, name, self string) (err error) {
	tmp, err := newLink(dir, name, self)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	// Whose files are ours is read off the link just made, not off the user id: in a
	// guest kernel root's files belong to whoever started the guest.
	owner, err := os.Lstat(tmp)
	if err != nil {
		return err
	}
	for _, d := range ours(dir) {
		info, err := os.Lstat(d)
		if err != nil {
			return err
		}
		if uid(info) != uid(owner) || info.Mode().Perm()&0o022 != 0 || !info.IsDir() {
			return fmt.Errorf("%s is not a directory that only this user can change (mode %v, owner %d, expected %d)",
				d, info.Mode(), uid(info), uid(owner))
		}
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// ours are dir and the directories above it that sandrun made, which are those up to
// the one with its name. What is above that is not ours to judge.
func ours(dir string) []string {
	dirs := []string{dir}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if d != dir {
			dirs = append(dirs, d)
		}
		if base := filepath.Base(d); base == "sandrun" || strings.HasPrefix(base, "sandrun-") {
			return dirs
		}
	}
	return dirs[:1]
}

// newLink makes a link of a name that nobody else uses. A name that is taken was left
// by a killed process, or belongs to one in another pid namespace: try the next.
func newLink(dir, name, self string) (string, error) {
	const tries = 100
	var err error
	for i := range tries {
		tmp := filepath.Join(dir, fmt.Sprintf(".%s.%d.%d", name, os.Getpid(), i))
		if err = os.Symlink(self, tmp); err == nil {
			return tmp, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%w (%d names tried: remove the leftovers)", err, tries)
}

func uid(info fs.FileInfo) uint32 {
	return info.Sys().(*syscall.Stat_t).Uid
}

// plainPath refuses a path that would need quotes in GOFLAGS or in another runner's
// variable, where quoting is done differently or not at all.
func plainPath(path string) error {
	if i := strings.IndexFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`"'\$,`+"`", r) }); i >= 0 {
		return fmt.Errorf("%q: the character %q is not safe in GOFLAGS", path, path[i:i+1])
	}
	return nil
}

// getenv returns the value that a process started with environ sees: os/exec keeps
// the last of several.
func getenv(environ []string, key string) string {
	value := ""
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			value = v
		}
	}
	return value
}

// setenv returns a copy of environ in which key has value, once.
func setenv(environ []string, key, value string) []string {
	out := make([]string, 0, len(environ)+1)
	for _, kv := range environ {
		if k, _, ok := strings.Cut(kv, "="); !ok || k != key {
			out = append(out, kv)
		}
	}
	return append(out, key+"="+value)
}
