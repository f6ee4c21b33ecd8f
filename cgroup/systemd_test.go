package cgroup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/guest"
)

// systemd is the init of a pid namespace of the guest, in a cgroup namespace of
// its own: the system's and a user's manager, logind and D-Bus are the real ones.
// Process 1 of the guest stays ours, and the root is the throw-away layer that it
// checked before it started anything.
const (
	systemdPath    = "/lib/systemd/systemd"
	systemdResults = "/dev/shm/sandrun-systemd" // the one tmpfs that both sides see
	systemdUserID  = 4242
)

// masked are the units that have no place in a test: they would wait for
// devices, talk to the network or to a terminal.
var masked = []string{
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udev-settle.service",
	"systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
	"systemd-journal-flush.service", "systemd-networkd.service", "systemd-networkd.socket", "systemd-timesyncd.service",
	"systemd-random-seed.service", "systemd-update-utmp.service", "systemd-tmpfiles-setup-dev.service",
	"systemd-tmpfiles-setup.service", "systemd-tmpfiles-clean.timer", "systemd-sysusers.service",
	"systemd-modules-load.service", "systemd-sysctl.service", "systemd-firstboot.service", "systemd-pstore.service",
	"systemd-binfmt.service", "systemd-remount-fs.service", "systemd-machine-id-commit.service",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
	"sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "tmp.mount",
	"getty.target", "getty@tty1.service", "console-getty.service", "cron.service", "ssh.service", "docker.service",
	"containerd.service", "postgresql.service", "networking.service", "e2scrub_reap.service", "timers.target",
}

// units are the test's own. The target pulls in what a login needs.
var units = map[string]string{
	"sandrun-test.target": `[Unit]
Requires=basic.target dbus.service systemd-logind.service sandrun-test.service
After=basic.target
AllowIsolate=yes
`,
	"sandrun-test.service": `[Unit]
After=basic.target dbus.service systemd-logind.service
[Service]
Type=oneshot
Environment=` + helperEnv + `=under-systemd GOMAXPROCS=1 HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/run/cgroup.test
StandardOutput=append:` + systemdResults + `
StandardError=append:` + systemdResults + `.log
TimeoutStartSec=100
`,
}

func init() {
	helpers["systemd"] = helperSystemd
	helpers["systemd-init"] = helperSystemdInit
	helpers["under-systemd"] = helperUnderSystemd
}

// helperSystemd starts process 1 of the namespaces; it lies in their cgroup
// already, which becomes the root of the cgroup namespace.
func helperSystemd([]string) error {
	c := helperCommand("systemd-init")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	// systemd cannot hand controllers down while we are where its root is.
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	return c.Wait()
}

// helperSystemdInit is process 1 of the namespaces until it becomes systemd.
// systemd empties directories and rewrites files: it must not start over a root
// that is the host's.
func helperSystemdInit([]string) error {
	if err := checkThrowAway(); err != nil {
		return fmt.Errorf("systemd is not started: %w", err)
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Unmount("/sys/fs/cgroup", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount cgroup2: %w", err)
	}
	const plain = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	for _, m := range []struct {
		fstype, target string
		flags          uintptr
		data           string
	}{
		{"proc", "/proc", plain, ""},
		{"cgroup2", "/sys/fs/cgroup", plain, ""},
		{"tmpfs", "/run", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755"},
		{"tmpfs", "/tmp", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=1777"},
	} {
		if err := syscall.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	if err := checkThrowAway(); err != nil {
		return fmt.Errorf("systemd is not started: %w", err)
	}
	const unitDir = "/run/systemd/system"
	if err := os.MkdirAll(unitDir, 0o755); err != nil {
		return err
	}
	for _, u := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(unitDir, u)); err != nil {
			return err
		}
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(unitDir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/run/cgroup.test", exe, 0o755); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"/etc/fstab": "", "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for file, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("sandrun-test:x:%d:%d::/tmp:/bin/sh\n", systemdUserID, systemdUserID),
		"/etc/group":  fmt.Sprintf("sandrun-test:x:%d:\n", systemdUserID),
		"/etc/shadow": "sandrun-test:*:19000:0:99999:7:::\n",
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, append(b, line...), 0o644); err != nil {
			return err
		}
	}
	env := []string{"container=sandrun-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	args := []string{systemdPath, "--unit=sandrun-test.target", "--show-status=0", "--log-target=null"}
	return syscall.Exec(systemdPath, args, env)
}

// checkThrowAway looks for itself, whatever process 1 of the guest has checked:
// the root is an overlay, and the host's files are mounted nowhere.
func checkThrowAway() error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	root := ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			return fmt.Errorf("/proc/self/mounts: %q", line)
		}
		if f[2] == "hostfs" {
			return fmt.Errorf("the host's files are mounted on %s", f[1])
		}
		if f[1] == "/" {
			root = f[2]
		}
	}
	if root != "overlay" {
		return fmt.Errorf("the root is %q, not an overlay", root)
	}
	return nil
}

// A scene is one way to ask for a tree under systemd, and what came of it.
type scene struct {
	Name         string
	Opened, Then opened // once open, once closed
	Err          string
}

// helperUnderSystemd is a service of systemd, not delegated, run as root. Each
// scene opens a tree from somewhere.
func helperUnderSystemd([]string) error {
	out := json.NewEncoder(os.Stdout)
	user := &syscall.Credential{Uid: systemdUserID, Gid: systemdUserID}
	runtime := fmt.Sprintf("/run/user/%d", systemdUserID)
	play := func(name string, cred *syscall.Credential, wrap ...string) error {
		s := scene{Name: name}
		if err := s.play(cred, runtime, wrap); err != nil {
			s.Err = err.Error()
		}
		return out.Encode(s)
	}
	err := errors.Join(
		play("user without a manager", user),
		play("root in a service", nil),
		play("root in a delegated scope", nil, "systemd-run", "--quiet", "--scope", "-p", "Delegate=yes"),
		play("root in a delegated scope with a parent", nil, "systemd-run", "--quiet", "--scope", "-p", "Delegate=yes", "sh", "-c", `"$0" "$@"; true`),
	)
	if b, serr := exec.Command("systemctl", "start", fmt.Sprintf("user@%d.service", systemdUserID)).CombinedOutput(); serr != nil {
		return errors.Join(err, fmt.Errorf("start the user's systemd: %w: %s", serr, b))
	}
	err = errors.Join(err,
		play("user in a service", user),
		play("user in a delegated scope", user, "systemd-run", "--quiet", "--user", "--scope", "-p", "Delegate=yes"),
		play("user in a scope", user, "systemd-run", "--quiet", "--user", "--scope"),
		play("user under a limit", user, "systemd-run", "--quiet", "--user", "--scope", "-p", "Delegate=yes", "-p", "MemoryMax=32M"),
	)
	// The manager's own socket serves where there is no bus.
	alt := "/run/sandrun-alt"
	err = errors.Join(err, os.MkdirAll(alt+"/systemd", 0o755), os.Symlink(runtime+"/systemd/private", alt+"/systemd/private"))
	runtime = alt
	return errors.Join(err, play("user without a bus", user), out.Encode(scene{Name: "end"}))
}

func (s *scene) play(cred *syscall.Credential, runtime string, wrap []string) error {
	spec, err := json.Marshal(openSpec{Run: strings.ReplaceAll(s.Name, " ", "-"), Machine: Limits{Memory: 64 << 20, Pids: 64, CPUs: 1}, Hog: true})
	if err != nil {
		return err
	}
	args := append(append([]string{}, wrap...), "/run/cgroup.test", string(spec))
	c := exec.Command(args[0], args[1:]...)
	c.Env = []string{helperEnv + "=open", "GOMAXPROCS=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if cred != nil {
		c.Env = append(c.Env, "XDG_RUNTIME_DIR="+runtime)
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	b, err := c.Output() // its standard input is empty: it closes its tree at once
	d := json.NewDecoder(bytes.NewReader(b))
	if derr := d.Decode(&s.Opened); derr != nil {
		return fmt.Errorf("%w; %w; stderr: %s", err, derr, stderr.String())
	}
	if s.Opened.Error == "" {
		if derr := d.Decode(&s.Then); derr != nil {
			return fmt.Errorf("%w; %w; stderr: %s", err, derr, stderr.String())
		}
	}
	return err
}

func TestUnderSystemd(t *testing.T) {
	if _, err := os.Stat(systemdPath); err != nil {
		mustWork(t, fmt.Errorf("%w: no systemd to test with: %w", ErrNotSupported, err))
	}
	if f, err := guest.ReadFacts(); err != nil || !f.Overlay {
		t.Fatalf("systemd runs over a throw-away layer only: %+v, %v", f, err)
	}
	box := newSandbox(t)
	start(t, box.attr(0), "systemd")
	t.Cleanup(func() { _ = os.Remove(systemdResults); _ = os.Remove(systemdResults + ".log") })
	scenes := make(map[string]scene)
	deadline := time.Now().Add(90 * time.Second)
	for {
		b, _ := os.ReadFile(systemdResults)
		if d := json.NewDecoder(bytes.NewReader(b)); bytes.Contains(b, []byte(`"end"`)) {
			for {
				var s scene
				if err := d.Decode(&s); err != nil {
					break
				}
				scenes[s.Name] = s
			}
			break
		}
		if log, _ := os.ReadFile(systemdResults + ".log"); len(log) > 0 || time.Now().After(deadline) {
			t.Fatalf("the service under systemd did not end well; it said:\n%s\n%s", b, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for name, want := range map[string]struct{ via, path, refused, refusal, err string }{
		"user without a manager":                  {err: "loginctl enable-linger 4242"},
		"root in a service":                       {via: SystemdSystem, path: "/system.slice/sandrun-root-in-a-service.scope", refused: Nested, refusal: "systemd manages this cgroup and has not delegated it"},
		"root in a delegated scope":               {via: Nested, path: "/system.slice/run-"},
		"root in a delegated scope with a parent": {via: Nested, path: "/system.slice/run-"},
		"user in a service":                       {via: SystemdUser, path: "/user.slice/user-4242.slice/user@4242.service/app.slice/sandrun-user-in-a-service.scope", refused: Nested, refusal: "sandrun-test.service has Delegate=no"},
		"user in a delegated scope":               {via: Nested, path: "/user.slice/user-4242.slice/user@4242.service/app.slice/run-"},
		"user in a scope":                         {via: SystemdUser, path: "/user.slice/user-4242.slice/user@4242.service/app.slice/sandrun-user-in-a-scope.scope", refused: Nested, refusal: ".scope has Delegate=no"},
		"user under a limit":                      {err: "/memory.max=33554432: this outer limit is tighter than the machine's 67108864"},
		"user without a bus":                      {via: SystemdUser, path: "/user.slice/user-4242.slice/user@4242.service/app.slice/sandrun-user-without-a-bus.scope"},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := scenes[name]
			if !ok || s.Err != "" {
				t.Fatalf("the scene did not end well: %+v", s)
			}
			o := s.Opened
			if want.err != "" {
				if !strings.Contains(o.Error, want.err) || o.Path != "" {
					t.Errorf("got %+v, want an error with %q", o, want.err)
				}
				return
			}
			if o.Error != "" || o.Via != want.via || !strings.HasPrefix(o.Path, "/sys/fs/cgroup"+want.path) {
				t.Fatalf("got %+v, want %s at %s", o, want.via, want.path)
			}
			if want.refused != "" && !strings.Contains(o.Refused[want.refused], want.refusal) {
				t.Errorf("refusals %v, want %s: %s", o.Refused, want.refused, want.refusal)
			}
			if o.Caps != "67108864" || !strings.HasSuffix(o.Self, "/supervisor") || !o.HogKilled {
				t.Errorf("the tree does not hold: %+v", o)
			}
			if s.Then.CloseError != "" || "/sys/fs/cgroup"+s.Then.After != o.Path {
				t.Errorf("after Close: %+v, want to be in %s", s.Then, o.Path)
			}
		})
	}
	if err := box.kill(); err != nil {
		t.Error(err)
	}
}

// kill ends all in the sandbox, which makes it removable.
func (s *sandbox) kill() error {
	return os.WriteFile(s.path+"/cgroup.kill", []byte("1"), 0)
}

// mustWork skips for a feature that is missing, where that is allowed.
func mustWork(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrNotSupported) || os.Getenv("SANDRUN_TEST_MUST_WORK") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func TestUnitOf(t *testing.T) {
	for cgroup, want := range map[string][2]string{
		"/system.slice/ci-agent.service/work":                                       {SystemdSystem, "ci-agent.service"},
		"/user.slice/user-1000.slice/session-3.scope":                               {SystemdSystem, "session-3.scope"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope/a":    {SystemdUser, "run-r1.scope"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/a.slice/b.service": {SystemdUser, "b.service"},
		"/user.slice/user-1000.slice/user@1000.service":                             {SystemdUser, ""},
		"/": {SystemdSystem, ""},
	} {
		if via, unit := unitOf(cgroup); via != want[0] || unit != want[1] {
			t.Errorf("unitOf(%q) = %s, %q; want %v", cgroup, via, unit, want)
		}
	}
}
