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

// delegatedBySystemd reports, as nil, that systemd has delegated the cgroup: it
// sets the attribute user.delegate (trusted.delegate, which only root sees,
// before v251) on a unit's cgroup with Delegate=yes. What is below such a unit is
// delegated with it, unless the unit is another systemd, which manages what is
// below itself.
func delegatedBySystemd(h hierarchy, own string) error {
	for dir := own; ; dir = path.Dir(dir) {
		if hasDelegate(dir) {
			_, user := managerUID(dir)
			if user || dir == h.mount {
				break
			}
			return nil
		}
		if dir == h.mount || dir == "/" {
			break
		}
	}
	return &FileError{
		Op: "open", Path: own, Err: errors.New("systemd manages this cgroup and has not delegated it"),
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

// managerUID recognizes the cgroup of a user's systemd, user@UID.service.
func managerUID(dir string) (uid string, ok bool) {
	uid, ok = strings.CutPrefix(path.Base(dir), "user@")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(uid, ".service")
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
	var errs []error
	for _, a := range addresses {
		conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return dialBus(ctx, a) })
		if err == nil {
			return a, conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
	}
	return "", nil, fmt.Errorf("no D-Bus to systemd: %w (%s)", errors.Join(errs...), fix)
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
