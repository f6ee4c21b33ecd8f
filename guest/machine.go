// Package guest is the embedded kernel: it fetches and keeps a User Mode Linux
// kernel, boots it over the host's own file system as an ordinary process, and
// runs one command in it with that command's own streams, status and signals.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Machine is an ephemeral kernel that runs one command over the host's own
// file system and is gone when the command ends. It mirrors exec.Cmd: fill in
// the exported fields, Start it, Wait for it. A Machine cannot be used twice.
//
// Each of Stdin, Stdout and Stderr that is a terminal on the host is a terminal
// inside (the three share one pseudo-terminal); the others are byte-exact pipes.
type Machine struct {
	// Kernel is the path of the User Mode Linux executable, and Modules the
	// directory of its modules (*.ko), which may be empty unless Overlay is set.
	Kernel, Modules string

	// Init is the absolute path of a program whose first act is guest.Init. It
	// becomes process 1 of the guest; the running executable will usually do.
	Init string

	// Args is the command; Args[0] is the absolute path of its program. Env and
	// Dir are its environment and working directory. It runs as user 0 of the
	// guest, with the rights on files of the user who started the machine.
	Args []string
	Env  []string
	Dir  string

	// Stdin, Stdout and Stderr; nil is the null device.
	Stdin, Stdout, Stderr *os.File

	// Memory is the guest's memory in bytes, Swap the size of its swap space in
	// bytes (0: none).
	Memory, Swap int64

	// Overlay runs the command over a throw-away layer: the host's file system
	// is the guest's root for reading only, and every write is gone at the end.
	Overlay bool

	// Network says what the guest can reach beyond its own loopback interface.
	Network NetworkMode

	// BootTimeout bounds the time from Start to the start of the command (0: 20
	// seconds); Timeout bounds the whole life of the
	// machine (0: no bound).
	BootTimeout, Timeout time.Duration

	// RunDir is an existing directory that belongs to this run alone. All that
	// the machine writes on the host is below it, and Wait removes what it made.
	RunDir string

	// Forward lists host signals that the machine catches from Start to Wait and
	// passes to the command; one that ends a process ends the boot, too. SIGTSTP
	// stops the machine and this process, until that is continued. SIGWINCH needs
	// no mention: a terminal is followed.
	Forward []os.Signal

	// Warn, when set, is told what does not stop the machine but may spoil the
	// run, such as a guest larger than the host's available memory.
	Warn func(message string)

	run       *running // once started
	extraArgs []string // more for the kernel's command line, behind our own
}

// A NetworkMode says what a guest can reach.
type NetworkMode string

// The network modes.
const (
	NetworkLoopback NetworkMode = ""      // only itself
	NetworkPasst    NetworkMode = "passt" // the host's network, through the passt program
)

// Start boots the machine and returns once its kernel process runs; Wait must
// follow. When ctx is done the guest is told to power off, and killed if it does
// not.
func (m *Machine) Start(ctx context.Context) error {
	if m.run != nil {
		return errors.New("guest: machine already started")
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	r, err := m.start()
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	m.run = r
	go r.supervise(ctx)
	return nil
}

// Wait returns when the command has ended and nothing of the machine is left:
// nil for status 0, an *ExitError for another status, and any other error when
// the machine itself failed.
func (m *Machine) Wait() error {
	if m.run == nil {
		return errors.New("guest: machine not started")
	}
	<-m.run.done
	return m.run.err
}

// Signal sends a signal to the command's process, and to that one only; SIGCONT
// goes to its process group. Before the command runs it is kept for it.
func (m *Machine) Signal(s os.Signal) error {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return fmt.Errorf("guest: %v is no signal of this system", s)
	}
	if m.run == nil {
		return errors.New("guest: machine not started")
	}
	select {
	case <-m.run.done:
		return os.ErrProcessDone
	default:
		return m.run.link.send(message{Signal: int(sig)})
	}
}

// Console returns the last part of what the guest kernel printed.
func (m *Machine) Console() string {
	if m.run == nil {
		return ""
	}
	return m.run.console.String()
}

// check refuses what cannot work before anything is made.
func (m *Machine) check() error {
	if len(m.Args) == 0 {
		return errors.New("no command")
	}
	if m.Memory < minMemory {
		return fmt.Errorf("memory of %s: a guest needs at least %s", mib(m.Memory), mib(minMemory))
	}
	if m.Overlay && m.Modules == "" {
		return errors.New("an overlay needs the kernel's overlay module: no module directory given")
	}
	for _, p := range []struct{ what, path string }{
		{"program", m.Args[0]}, {"init", m.Init}, {"working directory", m.Dir},
	} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q: must be an absolute path", p.what, p.path)
		}
		if own := ownDir(p.path); own != "" {
			return fmt.Errorf("%s %s: %s of a guest is its own, not the host's; use a path elsewhere", p.what, p.path, own)
		}
	}
	if !filepath.IsAbs(m.RunDir) || !plainPath(m.RunDir) {
		return fmt.Errorf("run directory %q: must be an absolute path without white space (to a kernel the byte 0xA0, too, as in \"à\"), quotes, commas, colons and backslashes, which a kernel command line cannot carry; set TMPDIR to one", m.RunDir)
	}
	if st, err := os.Stat(m.RunDir); err != nil {
		return fmt.Errorf("run directory: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("run directory %s: not a directory", m.RunDir)
	}
	return nil
}

// plainPath reports whether a path means itself on a kernel command line, and in
// the arguments of the kernel's block driver.
func plainPath(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }) && !strings.ContainsAny(path, `,:"'\\`) &&
		strings.IndexByte(path, latin1Space) < 0
}

// latin1Space is white space to the kernel (lib/ctype.c), also as half of an "à".
const latin1Space = 0xa0

// minMemory is what the kernel, process 1 and a small command need, in bytes.
const minMemory = 64 << 20

// ownDir returns the directory over path on which a guest mounts its own files.
func ownDir(path string) string {
	for _, d := range []string{"/dev", "/proc", "/sys", "/run"} {
		if path == d || strings.HasPrefix(path, d+"/") {
			return d
		}
	}
	return ""
}
