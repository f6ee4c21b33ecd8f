package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// The ways to a delegated subtree, in the order in which Open tries them.
const (
	Nested        = "nested"         // the caller's own cgroup is delegated already
	SystemdUser   = "systemd-user"   // a transient scope from the user's systemd
	SystemdSystem = "systemd-system" // a transient scope from the system's systemd
	Root          = "root"           // root, on a hierarchy that nobody else manages
)

// Ways are all ways to a delegated subtree, in the order in which Open tries them.
func Ways() []string { return []string{Nested, SystemdUser, SystemdSystem, Root} }

// A Delegation is a subtree that the run may fill as it likes.
type Delegation struct {
	Via     string    // Nested, SystemdUser, SystemdSystem or Root
	Path    string    // absolute directory under the cgroup2 mount
	Refused []Refusal // the ways tried before, in order
}

// A Refusal is a way that did not serve, and why.
type Refusal struct {
	Via string
	Err error
}

// unlimited is what a limit of "max" reads as.
const unlimited = math.MaxInt64

// acquire tries the ways in order and enters the first site that serves.
func acquire(ctx context.Context, o Options) (*site, []Refusal, error) {
	h, err := findHierarchy()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoDelegation, err)
	}
	ways := o.Ways
	if ways == nil {
		ways = Ways()
	}
	var refused []Refusal
	for _, via := range ways {
		s, err := find(ctx, h, via, o.Run)
		if err == nil {
			err = s.enter(ctx, Prefix+o.Run, o.Machine.CPUs > 0)
		}
		if err == nil {
			return s, refused, nil
		}
		refused = append(refused, Refusal{Via: via, Err: err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, &DelegationError{Refused: refused}
}

func find(ctx context.Context, h hierarchy, via, run string) (*site, error) {
	switch via {
	case Nested:
		return findNested(ctx, h)
	case SystemdUser, SystemdSystem:
		return findSystemd(ctx, h, via, run)
	case Root:
		return findRoot(h)
	}
	return nil, fmt.Errorf("no such way: %q (one of %s)", via, strings.Join(Ways(), ", "))
}

// findNested takes the caller's own cgroup, when it is not systemd's to manage.
func findNested(ctx context.Context, h hierarchy) (*site, error) {
	own, err := h.self()
	if err != nil {
		return nil, err
	}
	if path.Base(own) == outerName { // another run has moved us aside
		own = path.Dir(own)
	}
	root, err := isRoot(own)
	if err != nil {
		return nil, err
	}
	if root {
		return nil, fmt.Errorf("%s is the root of the hierarchy, which nobody delegates", own)
	}
	if systemdBooted() {
		if err := delegatedBySystemd(ctx, h, own); err != nil {
			return nil, err
		}
	}
	return &site{via: Nested, path: own, origin: own}, nil
}

// findRoot takes the root of the hierarchy, for root on a machine where no
// systemd manages it and nobody has put limits on the caller.
func findRoot(h hierarchy) (*site, error) {
	if uid := os.Geteuid(); uid != 0 {
		return nil, fmt.Errorf("uid %d is not root", uid)
	}
	if systemdBooted() {
		return nil, errors.New("systemd manages the hierarchy")
	}
	if root, err := isRoot(h.mount); err != nil {
		return nil, err
	} else if !root {
		return nil, fmt.Errorf("%s is not the root of the hierarchy, but the inside of a cgroup namespace", h.mount)
	}
	own, err := h.self()
	if err != nil {
		return nil, err
	}
	for dir := own; dir != h.mount; dir = path.Dir(dir) {
		for _, file := range []string{"memory.max", "memory.swap.max", "pids.max", "memory.high"} {
			v, err := readLimit(dir, file)
			if err != nil {
				return nil, err
			}
			if v != unlimited {
				return nil, &FileError{Op: "read", Path: dir + "/" + file, Value: fmt.Sprint(v), Err: errors.New("a tree at the root would escape this limit"), Fix: "delegate the cgroup that sandrun is started in"}
			}
		}
	}
	return &site{via: Root, path: h.mount, origin: own}, nil
}

// isRoot reports whether a cgroup is the root of the whole hierarchy: the only
// one without a cgroup.type.
func isRoot(dir string) (bool, error) {
	fd, err := sys.OpenDir(dir)
	if err != nil {
		return false, &FileError{Op: "open", Path: dir, Err: err, Fix: fixForSite(err)}
	}
	defer func() { _ = sys.CloseFD(fd) }()
	if ok, err := sys.IsCgroup2(fd); err != nil || !ok {
		return false, &FileError{Op: "open", Path: dir, Err: errors.Join(errors.New("not on a cgroup2 file system"), err)}
	}
	typ, err := sys.OpenAt(fd, "cgroup.type")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, &FileError{Op: "open", Path: dir + "/cgroup.type", Err: err}
	}
	return false, sys.CloseFD(typ)
}
