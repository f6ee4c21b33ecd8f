package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/sys"
)

// guestKernelCheck is the name of the check that says whether a guest can boot.
const guestKernelCheck = "guest kernel"

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what this machine can do, and the command that mends what it cannot",
		Description: `Each line is a probe: ✓ yes, ✗ no, ? could not tell, · refused, but another way
serves. A way to a delegated cgroup is tried for real: a tree is made and removed.

Exits 1 when a run would fail: neither this kernel can give cgroups nor is there a
guest kernel that can.`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "write JSON"}},
		OnUsageError: usageError,
		Action:       runDoctor,
	}
}

// A diagnosis is what doctor found; its JSON form is what --json writes.
type diagnosis struct {
	// Where a run's leaves would be made: "host", "guest", or "" when it would fail.
	Where  string         `json:"where"`
	Host   []cgroup.Check `json:"host"`
	Guest  []cgroup.Check `json:"guest"`
	Remedy string         `json:"remedy,omitempty"` // the one command to run first, when a run would fail
}

func runDoctor(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	d := diagnose(cgroup.Probe(ctx), probeGuest(guest.DefaultStore()))
	w := c.Root().Writer
	if c.Bool("json") {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(d); err != nil {
			return err
		}
	} else if err := d.print(w); err != nil {
		return err
	}
	if d.Where == "" {
		return exitStatus(1)
	}
	return nil
}

func diagnose(host, inGuest []cgroup.Check) diagnosis {
	d := diagnosis{Host: host, Guest: inGuest}
	switch {
	case stateOf(host, cgroup.DelegationCheck) == cgroup.Yes:
		d.Where = "host"
	case stateOf(inGuest, guestKernelCheck) == cgroup.Yes:
		d.Where = "guest"
	default:
		for _, c := range inGuest {
			if c.Name == guestKernelCheck {
				d.Remedy = c.Fix
			}
		}
	}
	return d
}

func stateOf(checks []cgroup.Check, name string) cgroup.State {
	for _, c := range checks {
		if c.Name == name {
			return c.State
		}
	}
	return cgroup.Unknown
}

// probeGuest looks at what the embedded kernel needs.
func probeGuest(store guest.Store) []cgroup.Check {
	if guest.Inside() {
		return []cgroup.Check{{Name: guestKernelCheck, State: cgroup.Yes, Detail: "this is the guest"}}
	}
	kernel := cgroup.Check{Name: guestKernelCheck}
	status, err := store.Status()
	switch {
	case err == nil && status.Override:
		kernel.State, kernel.Detail = cgroup.Yes, status.Kernel+" of "+guest.KernelEnv
	case err == nil:
		kernel.State, kernel.Detail = cgroup.Yes, "Linux "+status.Manifest.Release+" in "+status.Kernel
	case errors.Is(err, guest.ErrNoKernel):
		kernel.State, kernel.Detail, kernel.Fix = cgroup.No, strings.TrimSuffix(err.Error(), ": run 'sandrun kernel install'"), "sandrun kernel install"
	default:
		kernel.State, kernel.Detail = cgroup.No, err.Error()
	}
	return append([]cgroup.Check{kernel, probeDisk(store.Dir), probePasst(), probeMaps()}, guestLimits...)
}

// guestLimits are what a user of the guest should know before it surprises.
var guestLimits = []cgroup.Check{
	{
		Name: "guest processors", State: cgroup.Yes,
		Detail: "one, bound to one of this machine's: code runs at native speed, process and file work several times slower, and workers share it",
	},
	{
		Name: "guest files", State: cgroup.Yes,
		Detail: "this machine's own, but: time stamps in whole seconds, no extended attributes, no O_TMPFILE or O_DIRECT, and locks that this machine does not see (no GOCACHE in use on both sides at once); --guest-overlay mends the time stamps, attributes and temporary files",
	},
}

// probeDisk looks at the space for the guest's kernel, in the first directory on
// the way to it that exists.
func probeDisk(dir string) cgroup.Check {
	const need = 64 << 20 // bytes: the package while it is unpacked, and the kernel
	c := cgroup.Check{Name: "disk"}
	if dir == "" {
		c.State, c.Detail, c.Fix = cgroup.No, "no cache directory for the guest kernel", "set HOME or XDG_CACHE_HOME"
		return c
	}
	var space sys.Space
	var err error
	at := dir
	for {
		if space, err = sys.SpaceOf(at); err == nil || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	if err != nil {
		c.State, c.Detail = cgroup.Unknown, err.Error()
		return c
	}
	c.State, c.Detail = cgroup.Yes, fmt.Sprintf("%d MiB free at %s", space.Free>>20, at)
	switch {
	case space.Free < need:
		c.State, c.Fix = cgroup.No, fmt.Sprintf("free %d MiB, or set XDG_CACHE_HOME to another disk", (need-space.Free)>>20+1)
	case space.NoExec:
		c.State, c.Detail, c.Fix = cgroup.No, c.Detail+", but mounted noexec", "set XDG_CACHE_HOME to a disk from which programs may run"
	}
	return c
}

// fewMaps is the kernel's default of vm.max_map_count. Each page that a guest
// kernel touches out of order is a mapping of its own on the host.
const fewMaps = 65530

func probeMaps() cgroup.Check {
	const file = "/proc/sys/vm/max_map_count"
	c := cgroup.Check{Name: "vm.max_map_count"}
	b, err := os.ReadFile(file)
	n, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || perr != nil {
		c.State, c.Detail = cgroup.Unknown, fmt.Sprint(errors.Join(err, perr))
		return c
	}
	c.State, c.Detail = cgroup.Yes, strconv.Itoa(n)
	if n <= fewMaps {
		c.State = cgroup.No
		c.Detail += ": a process in the guest that touches some 256 MiB at random may die of SIGSEGV"
		c.Fix = "as root: sysctl vm.max_map_count=1048576"
	}
	return c
}

// probePasst looks for the program that connects a guest to the host's network.
func probePasst() cgroup.Check {
	path, err := exec.LookPath("passt")
	if err != nil {
		return cgroup.Check{Name: "passt", State: cgroup.No, Detail: "the guest kernel has no network but loopback", Fix: "as root: apt-get install passt"}
	}
	return cgroup.Check{Name: "passt", State: cgroup.Yes, Detail: path}
}

func (d diagnosis) print(w io.Writer) error {
	var b strings.Builder
	served := d.Where == "host"
	for _, part := range []struct {
		title  string
		checks []cgroup.Check
	}{{"this kernel", d.Host}, {"the guest kernel, for what this one cannot do", d.Guest}} {
		b.WriteString(part.title + "\n")
		for _, c := range part.checks {
			spare := served && strings.HasPrefix(c.Name, cgroup.DelegationCheck+": ")
			fmt.Fprintf(&b, "  %s %-26s %s\n", mark(c.State, spare), c.Name, c.Detail)
			if c.Fix != "" && c.State != cgroup.Yes && !spare {
				fmt.Fprintf(&b, "    %-26s fix: %s\n", "", c.Fix)
			}
		}
	}
	switch d.Where {
	case "host":
		b.WriteString("\na run makes its leaves on this kernel\n")
	case "guest":
		b.WriteString("\na run makes its leaves in the guest kernel: this one cannot give them\n")
	default:
		b.WriteString("\na run would fail: this kernel gives no leaves, and there is no guest kernel")
		if d.Remedy != "" {
			b.WriteString("; run: " + d.Remedy)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mark(s cgroup.State, spare bool) string {
	switch {
	case s == cgroup.Yes:
		return "✓"
	case spare:
		return "·"
	case s == cgroup.No:
		return "✗"
	}
	return "?"
}
