package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/sandrun/sandrun/internal/sys"
)

// systemdWait bounds each exchange with systemd.
const systemdWait = 5 * time.Second

// scopeSuffix ends the name of the scope that systemd makes for a run.
const scopeSuffix = ".scope"

// unlimitedTasks is systemd's "infinity".
const unlimitedTasks = ^uint64(0)

// systemdBooted reports whether systemd is the init of this machine or
// container; sd_booted(3).
func systemdBooted() bool {
	fi, err := os.Lstat("/run/systemd/system")
	return err == nil && fi.IsDir()
}

// delegatedBySystemd reports, as nil, that systemd has delegated the cgroup. It
// marks a delegated unit's cgroup with the attribute user.delegate
// (trusted.delegate, which only root sees, before v251), and what is below such a
// unit is delegated with it, unless the unit is another systemd, which manages
// what is below itself. A user's systemd of v252 marks nothing: it is asked.
func delegatedBySystemd(ctx context.Context, h hierarchy, own string) error {
	for dir := own; dir != h.mount && dir != "/"; dir = path.Dir(dir) {
		if isUserManager(path.Base(dir)) {
			break
		}
		if hasDelegate(dir) {
			return nil
		}
	}
	err := askDelegate(ctx, strings.TrimPrefix(own, h.mount))
	if err == nil {
		return nil
	}
	return &FileError{
		Op: "open", Path: own, Err: fmt.Errorf("systemd manages this cgroup and has not delegated it: %w", err),
		Fix: "start sandrun with systemd-run --user --scope -p Delegate=yes",
	}
}

func hasDelegate(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if v, err := sys.Xattr(dir, name); err == nil && v == "1" {
			return true
		}
	}
	return false
}

// isUserManager recognizes the unit of a user's systemd, user@UID.service.
func isUserManager(unit string) bool {
	return strings.HasPrefix(unit, "user@") && strings.HasSuffix(unit, ".service")
}

// unitOf finds in a cgroup's path the unit that it is of or below, and whose it
// is: a user's systemd has what is below its own unit, the system's the rest.
func unitOf(cgroup string) (via, unit string) {
	via = SystemdSystem
	for element := range strings.SplitSeq(cgroup, "/") {
		switch {
		case isUserManager(element):
			via, unit = SystemdUser, ""
		case unit == "" && (strings.HasSuffix(element, scopeSuffix) || strings.HasSuffix(element, ".service")):
			unit = element
		}
	}
	return via, unit
}

// askDelegate asks systemd for the Delegate property of the unit of a cgroup.
func askDelegate(ctx context.Context, cgroup string) error {
	via, unit := unitOf(cgroup)
	if unit == "" {
		return errors.New("no unit of it holds this process")
	}
	if err := mayAsk(via); via == SystemdUser && err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, systemdWait)
	defer cancel()
	_, conn, err := dialSystemd(ctx, via)
	if err != nil {
		return err
	}
	defer conn.Close()
	kind := "Service"
	if strings.HasSuffix(unit, scopeSuffix) {
		kind = "Scope"
	}
	p, err := conn.GetUnitTypePropertyContext(ctx, unit, kind, "Delegate")
	if err != nil {
		return fmt.Errorf("ask for Delegate of %s: %w", unit, err)
	}
	if yes, ok := p.Value.Value().(bool); !ok || !yes {
		return fmt.Errorf("%s has Delegate=no", unit)
	}
	return nil
}

// findSystemd asks systemd for a transient scope around the calling process and
// believes only what the kernel then says.
func findSystemd(ctx context.Context, h hierarchy, via, run string) (*site, error) {
	if err := mayAsk(via); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, systemdWait)
	defer cancel()
	address, conn, err := dialSystemd(ctx, via)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	unit := Prefix + run + scopeSuffix
	if err := startScope(ctx, conn, unit); err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", address, unit, err)
	}
	own, err := h.self()
	if err != nil {
		return nil, err
	}
	if path.Base(own) != unit {
		return nil, fmt.Errorf("systemd started %s, but /proc/self/cgroup says %s: it manages another hierarchy than this process sees", unit, own)
	}
	return &site{via: via, path: own, origin: own}, nil
}

// mayAsk keeps root to the system's systemd and everybody else to their own: the
// system's would ask an unprivileged user for a password.
func mayAsk(via string) error {
	root := os.Geteuid() == 0
	switch {
	case !systemdBooted():
		return fmt.Errorf("systemd is not the init here: %w", ErrNotSupported)
	case via == SystemdUser && root:
		return errors.New("root uses the system's systemd")
	case via == SystemdSystem && !root:
		return fmt.Errorf("uid %d may not ask the system's systemd", os.Geteuid())
	}
	return nil
}

// dialSystemd connects to a systemd. The addresses are explicit: the libraries'
// own search would start a bus where there is none.
func dialSystemd(ctx context.Context, via string) (address string, conn *systemd.Conn, err error) {
	fix := "install and start dbus: apt-get install dbus"
	addresses := []string{"unix:path=/run/dbus/system_bus_socket", "unix:path=/run/systemd/private"}
	if via == SystemdUser {
		runtime := os.Getenv("XDG_RUNTIME_DIR")
		if runtime == "" {
			runtime = fmt.Sprintf("/run/user/%d", os.Geteuid())
		}
		addresses = []string{"unix:path=" + dbus.EscapeBusAddressValue(runtime+"/bus"), "unix:path=" + dbus.EscapeBusAddressValue(runtime+"/systemd/private")}
		if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" && !strings.HasPrefix(a, "autolaunch:") {
			addresses = append([]string{a}, addresses...)
		}
		fix = fmt.Sprintf("start the user's systemd: loginctl enable-linger %d; it needs dbus-user-session and libpam-systemd", os.Geteuid())
	}
	err = errors.New("no D-Bus to systemd")
	for _, a := range addresses {
		conn, failed := systemd.NewConnection(func() (*dbus.Conn, error) { return dialBus(ctx, a) })
		if failed == nil {
			return a, conn, nil
		}
		err = fmt.Errorf("%w; %s: %w", err, a, failed)
	}
	return "", nil, fmt.Errorf("%w (%s)", err, fix)
}

func dialBus(ctx context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(fmt.Sprint(os.Geteuid()))}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if strings.HasSuffix(address, "/systemd/private") {
		return conn, nil // a peer, not a bus: there is nobody to say Hello to
	}
	if err := conn.Hello(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// startScope starts a transient scope with the calling process in it and waits
// until the job is done.
func startScope(ctx context.Context, conn *systemd.Conn, unit string) error {
	done := make(chan string, 1)
	_, err := conn.StartTransientUnitContext(ctx, unit, "fail", []systemd.Property{
		systemd.PropDescription("sandrun: a run's cgroups"),
		{Name: "Delegate", Value: dbus.MakeVariant(true)},
		// 0 is whoever asks, as the socket's credentials say: right in a pid
		// namespace too, where our number for ourselves is another process's.
		systemd.PropPids(0),
		// Without it the manager's DefaultTasksMax would sit above pids.max.
		{Name: "TasksMax", Value: dbus.MakeVariant(unlimitedTasks)},
		{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
	}, done)
	if err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("the job ended as %q (journalctl -u %s)", result, unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no answer within %v: %w", systemdWait, ctx.Err())
	}
}
