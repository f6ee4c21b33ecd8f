package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/profiles"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/supervisor"
)

// hostEnv carries what was decided on the host to the sandrun inside the guest,
// where the memory and processors of the host cannot be seen.
const hostEnv = "SANDRUN_FROM_HOST"

// A handover is the value of hostEnv, as JSON.
type handover struct {
	Machine profiles.Machine `json:"machine"`
	Path    []byte           `json:"path"` // of the command; bytes, since JSON strings are UTF-8
	UID     int              `json:"uid"`
	GID     int              `json:"gid"`
	Groups  []uint32         `json:"groups"`
	Umask   int              `json:"umask"`
}

// takeOver takes the plan that the host has made; false outside a guest.
func (p *plan) takeOver() (bool, error) {
	value, ok := os.LookupEnv(hostEnv)
	if !ok || !guest.Inside() {
		return false, nil
	}
	if err := os.Unsetenv(hostEnv); err != nil {
		return true, err
	}
	var h handover
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return true, fmt.Errorf("%s: %w", hostEnv, err)
	}
	p.machine, p.path, p.umask = h.Machine, string(h.Path), &h.Umask
	if h.UID != 0 {
		// Inside, sandrun is root for the sake of the cgroups; the command is who
		// it would be on the host.
		p.as = &syscall.Credential{Uid: uint32(h.UID), Gid: uint32(h.GID), Groups: h.Groups}
		for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
			if err := f.Chown(h.UID, h.GID); err != nil { // for /dev/stderr and the like
				return true, fmt.Errorf("hand %s to user %d: %w", f.Name(), h.UID, err)
			}
		}
	}
	return true, nil
}

// guestRoom is what a guest gets beyond the machine's memory: its kernel, the page
// cache of the host's files, and sandrun itself.
const guestRoom = 384 << 20

// unaskedMemory is the largest guest for the profile of this host, unless a flag asks
// for more: a kernel initializes all its memory as it boots, 4 GiB in about 50 ms and
// 20 GiB in a second, and takes 16 MiB of the host for each GiB.
const unaskedMemory = 4 << 30

// guestMachine makes the machine for a run in a guest, and the guest's memory in bytes.
func guestMachine(c *cli.Command, dir string) (m profiles.Machine, memory int64, err error) {
	if s := c.String("guest-memory"); s != "" {
		if memory, err = profiles.ParseSize(s, 0); err != nil {
			return m, 0, fmt.Errorf("--guest-memory: %w", err)
		}
	}
	limit := max(memory-guestRoom, 0)
	unasked := memory == 0 && c.String("profile") == "host" && c.String("memory") == ""
	if unasked {
		limit = unaskedMemory
	}
	const more = " of this machine: --guest-memory or --profile for more"
	if m, err = resolveMachine(c, dir, limit); err != nil {
		if unasked {
			err = fmt.Errorf("%w (the guest holds %s%s)", err, report.FormatBytes(unaskedMemory), more)
		}
		return m, 0, err
	}
	switch {
	case memory == 0:
		memory = m.Budget + guestRoom
	case memory < m.Budget:
		return m, 0, fmt.Errorf("--guest-memory %s is less than the %s that the run may use: the guest would be full before its caps are (leave it out, or lower --memory)",
			c.String("guest-memory"), report.FormatBytes(m.Budget))
	}
	if unasked && m.Memory == unaskedMemory { // a smaller machine is held whole
		m.Notes = append(m.Notes, "the guest holds "+report.FormatBytes(m.Memory)+more)
	}
	return m, memory, nil
}

// inGuest executes this same command line inside the embedded kernel.
func inGuest(ctx context.Context, c *cli.Command, p plan, signals <-chan os.Signal) (err error) {
	kernel, modules, err := guest.DefaultStore().Kernel()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var memory int64
	if p.machine, memory, err = guestMachine(c, p.dir); err != nil {
		return err
	}
	value, err := json.Marshal(handover{
		Machine: p.machine, Path: []byte(p.path), UID: os.Geteuid(), GID: os.Getegid(), Groups: groups(), Umask: umask(),
	})
	if err != nil {
		return err
	}
	if err := seenOutside(p.json); err != nil {
		return err
	}
	swap := p.machine.Swap
	if s := c.String("guest-swap"); s != "" {
		if swap, err = profiles.ParseSize(s, 0); err != nil {
			return fmt.Errorf("--guest-swap: %w", err)
		}
	}
	collecting, cancel := context.WithTimeout(ctx, collectWithin)
	_, _ = supervisor.Collect(collecting) // a failure is for 'sandrun gc' to tell
	cancel()
	dir, err := supervisor.NewRunDir(os.Geteuid())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	m := &guest.Machine{
		Kernel: kernel, Modules: modules,
		Init: self, Args: append([]string{self}, os.Args[1:]...),
		Env: append(os.Environ(), hostEnv+"="+string(value)), Dir: p.dir,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Memory: memory, Swap: swap,
		Overlay: c.Bool("guest-overlay"), Network: network(c.String("guest-network")),
		BootTimeout: c.Duration("guest-boot-timeout"),
		Timeout:     lifetime(p.runLimit),
		RunDir:      dir.Path,
		Forward: []os.Signal{
			syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP,
		},
		Warn: func(s string) { fmt.Fprintf(os.Stderr, "sandrun: %s\n", s) },
	}
	select {
	case sig := <-signals: // there is nobody yet to forward it to
		return exitStatus(128 + int(sig.(syscall.Signal)))
	default:
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	err = m.Wait()
	var exit *guest.ExitError
	if errors.As(err, &exit) {
		if exit.Reason != "" {
			fmt.Fprintf(os.Stderr, "sandrun: %s\n", exit.Reason)
		}
		return exitStatus(exit.Code)
	}
	return err
}

// faultNotes says of workers that died of a bad address what only the guest explains:
// the host may have given its kernel no more memory mappings.
func faultNotes(workers []report.Worker) (notes []string) {
	facts, err := guest.ReadFacts()
	if err != nil {
		return nil // no guest
	}
	for _, w := range workers {
		if w.Signal != "SIGSEGV" && w.Signal != "SIGBUS" {
			continue
		}
		if why := guest.ExplainFault(w.Usage.MemoryPeak, facts); why != "" {
			notes = append(notes, w.Label+" died of "+w.Signal+": "+why)
		}
	}
	log, err := sys.KernelLog()
	if note := guest.Explain(log, facts); err == nil && note != "" {
		notes = append(notes, note)
	}
	return notes
}

// network chooses the guest's network; passt is used where it is installed.
func network(choice string) guest.NetworkMode {
	if choice == "passt" || choice == "auto" && guest.HavePasst() {
		return guest.NetworkPasst
	}
	if choice == "auto" {
		fmt.Fprintln(os.Stderr, "sandrun: no network beyond loopback in the guest (install passt for one, or say --guest-network loopback)")
	}
	return guest.NetworkLoopback
}

// lifetime bounds a guest whose own sandrun no longer keeps the run's time-out: a
// kernel that the host gives no more memory mappings can stand still.
func lifetime(runLimit time.Duration) time.Duration {
	const grace = 30 * time.Second
	if runLimit == 0 {
		return 0
	}
	return runLimit + grace
}

// seenOutside refuses a report file in a place that the guest has for itself, by
// whatever links it is named.
func seenOutside(file string) error {
	if file == "" {
		return nil
	}
	switch filepath.Clean(file) {
	case "/dev/stderr", "/dev/stdout", "/dev/fd/1", "/dev/fd/2", "/dev/null", "/dev/tty":
		return nil // the guest has them too
	}
	target := file
	if info, err := os.Stat(file); err == nil {
		if mode := info.Mode(); !mode.IsRegular() {
			return fmt.Errorf("--json %s: it is no plain file (%v), and the guest cannot reach what is behind it (name a file, or /dev/stderr)", file, mode.Type())
		}
		if target, err = filepath.EvalSymlinks(file); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	for _, private := range []string{"/run", "/proc", "/sys", "/dev/shm"} {
		if strings.HasPrefix(dir+"/", private+"/") {
			return fmt.Errorf("--json %s: the guest has a %s of its own, so the file would be lost (name another directory)", file, private)
		}
	}
	return nil
}

// umask reads the file mode mask; there is no way to read it but to set it.
func umask() int {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return mask
}

func groups() []uint32 {
	ids, err := os.Getgroups()
	if err != nil {
		return nil
	}
	out := make([]uint32, len(ids))
	for i, id := range ids {
		out[i] = uint32(id)
	}
	return out
}
