package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/sandrun/sandrun/internal/sys"
)

// Prefix begins the name of every tree: sandrun-<run>.
const Prefix = "sandrun-"

// Names of the cgroups that every tree has; a leaf's name is the caller's.
const (
	supervisorName = "supervisor"
	machineName    = "machine"
	mainName       = "main"
)

// Options say what to build.
type Options struct {
	// Run is the run's id; the tree is named sandrun-<Run>.
	Run string
	// Machine are the caps of the whole run: of machine/, and so of all in it.
	Machine Limits
	// Ways restricts and orders the ways to a subtree; nil tries all, in the
	// order Nested, SystemdUser, SystemdSystem, Root.
	Ways []string
}

// A Tree is the delegated cgroup v2 subtree of one run:
//
//	sandrun-<run>/supervisor      the calling process, outside every cap of the run
//	sandrun-<run>/machine         the caps of the whole run
//	sandrun-<run>/machine/main    the user's command, without caps of its own
//	sandrun-<run>/machine/<name>  a leaf for each worker
//
// Close kills and removes it.
type Tree struct {
	delegation Delegation
	site       *site
	path       string
	machine    Node
	main       *Leaf

	mu     sync.Mutex // guards what follows, and makes NewLeaf and Close exclude each other
	leaves map[*Leaf]struct{}
	closed bool // no more leaves
	gone   bool // the directory is
}

// Open acquires a subtree, builds the tree in it, moves the calling process into
// supervisor/ and holds machine/ to its caps, which are read back. A way that
// does not serve is kept as a refusal and the next is tried; once one serves, an
// error is final: caps that cannot be had are never run without.
func Open(ctx context.Context, o Options) (_ *Tree, err error) {
	if _, ok := runOf(Prefix + o.Run); !ok {
		return nil, fmt.Errorf("run id: %w", &NameError{Name: o.Run})
	}
	if err := o.Machine.Validate(); err != nil {
		return nil, fmt.Errorf("the machine's caps: %w", err)
	}
	s, refused, err := acquire(ctx, o)
	if err != nil {
		return nil, err
	}
	t := &Tree{
		delegation: Delegation{Via: s.via, Path: s.path, Refused: refused},
		site:       s,
		path:       s.path + "/" + Prefix + o.Run,
		machine:    Node{fd: -1, events: -1},
		leaves:     make(map[*Leaf]struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close(ctx))
		}
	}()
	if err := s.roomFor(o.Machine); err != nil {
		return nil, err
	}
	if err := t.build(o.Machine); err != nil {
		return nil, err
	}
	return t, nil
}

// build makes machine/ and machine/main in the run's directory.
func (t *Tree) build(machine Limits) (err error) {
	run, err := sys.OpenDir(t.path)
	if err != nil {
		return &FileError{Op: "open", Path: t.path, Err: err}
	}
	defer func() { _ = sys.CloseFD(run) }()
	if err := enableControllers(run, t.path, machine.CPUs > 0); err != nil {
		return err
	}
	if err := sys.MkdirAt(run, machineName); err != nil {
		return &FileError{Op: "create", Path: t.path + "/" + machineName, Err: err, Fix: fixFor(machineName, err)}
	}
	if err := t.machine.open(run, t.path, machineName); err != nil {
		return err
	}
	if err := t.machine.apply(machine); err != nil {
		return err
	}
	if t.machine.has, err = t.machine.look(); err != nil {
		return err
	}
	if err := enableControllers(t.machine.fd, t.machine.path, machine.CPUs > 0); err != nil {
		return err
	}
	t.main, err = t.newLeaf(mainName, Limits{})
	return err
}

// Delegation says how the subtree was had, and why the ways before were refused.
func (t *Tree) Delegation() Delegation { return t.delegation }

// Path is the absolute directory of sandrun-<run>.
func (t *Tree) Path() string { return t.path }

// Machine is the cgroup that holds main and every leaf to the machine's caps.
func (t *Tree) Machine() *Node { return &t.machine }

// Main is the leaf for the user's command and what it builds. It has no caps of
// its own; the machine's hold it.
func (t *Tree) Main() *Leaf { return t.main }

// Member finds the cgroup of this tree that a path of the kernel log means: the
// name of a leaf, "main", "machine" or "supervisor", "" for the run's own
// directory. The kernel prints paths from the root of the hierarchy, which a
// cgroup namespace hides: the run's id in them is what counts.
func (t *Tree) Member(kernelPath string) (name string, ok bool) {
	_, rest, ok := strings.Cut(kernelPath+"/", "/"+path.Base(t.path)+"/")
	if !ok {
		return "", false
	}
	rest = strings.TrimPrefix(rest, machineName+"/")
	name, _, _ = strings.Cut(rest, "/")
	if name == "" && strings.HasSuffix(kernelPath, "/"+machineName) {
		name = machineName
	}
	return name, true
}

// Close kills all processes of the tree but the caller's, waits until they are
// gone, moves the caller back to where it came from and removes the tree. The
// error names what stays and why; another Close tries again. It waits until ctx is
// done, at most RemoveWait (a second, when it is done before).
func (t *Tree) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return nil
	}
	t.closed = true
	ctx, cancel := removal(ctx)
	defer cancel()
	// First of all, for the rest may have to wait for another run. Whatever stays is
	// named below, so the error says nothing new.
	_ = t.machine.Kill()
	for l := range t.leaves {
		l.close()
	}
	t.leaves = nil
	t.machine.close()
	err := t.site.leave(ctx, path.Base(t.path))
	t.gone = err == nil
	return err
}

// enableControllers lets the children of a cgroup be limited: memory and pids
// always, cpu where there is one, and as a must when cpu is asked for.
func enableControllers(dir int, dirPath string, cpu bool) error {
	for _, c := range []struct {
		name string
		must bool
	}{{"memory", true}, {"pids", true}, {"cpu", cpu}} {
		err := sys.WriteFileAt(dir, "cgroup.subtree_control", []byte("+"+c.name))
		if err != nil && c.must {
			return &FileError{Op: "write", Path: dirPath + "/cgroup.subtree_control", Value: "+" + c.name, Err: err, Fix: fixForController(dir, c.name, err)}
		}
	}
	var buf [256]byte
	n, err := sys.ReadFileAt(dir, "cgroup.subtree_control", buf[:])
	if err != nil {
		return &FileError{Op: "read", Path: dirPath + "/cgroup.subtree_control", Err: err}
	}
	on := strings.Fields(string(buf[:n]))
	for _, c := range []string{"memory", "pids"} {
		if !slices.Contains(on, c) {
			return &FileError{Op: "read back", Path: dirPath + "/cgroup.subtree_control", Value: "+" + c, Err: fmt.Errorf("the kernel holds %q", on)}
		}
	}
	return nil
}
