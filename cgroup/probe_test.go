package cgroup

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
)

func init() {
	helpers["probe"] = func([]string) error {
		return json.NewEncoder(os.Stdout).Encode(Probe(context.Background()))
	}
	helpers["probe-no-mount"] = func(args []string) error {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := syscall.Unmount("/sys/fs/cgroup", syscall.MNT_DETACH); err != nil {
			return err
		}
		return helpers["probe"](args)
	}
	helpers["probe-read-only"] = func(args []string) error {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := syscall.Mount("", "/sys/fs/cgroup", "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
			return err
		}
		return helpers["probe"](args)
	}
}

// probe gives what a helper in s finds, by name.
func (s *sandbox) probe(attr *syscall.SysProcAttr) map[string]Check {
	s.t.Helper()
	p := start(s.t, attr, "probe")
	var checks []Check
	if err := json.Unmarshal([]byte(p.line()), &checks); err != nil {
		s.t.Fatal(err)
	}
	p.wait()
	m := make(map[string]Check)
	for _, c := range checks {
		if _, twice := m[c.Name]; twice {
			s.t.Errorf("two checks named %q", c.Name)
		}
		m[c.Name] = c
	}
	return m
}

func wantStates(t *testing.T, got map[string]Check, want map[State]string) {
	t.Helper()
	for state, names := range want {
		for name := range strings.SplitSeq(names, ", ") {
			if got[name].State != state {
				t.Errorf("%s: want %s, got %+v", name, state, got[name])
			}
			if state == No && name != "systemd" && !strings.HasPrefix(name, DelegationCheck+": ") && got[name].Fix == "" {
				t.Errorf("%s: no fix is given", name)
			}
		}
	}
}

const leafChecks = "memory.peak, memory.swap.peak, pids.peak, cgroup.kill, memory.oom.group, memory.events.local, pids.events.local"

func TestProbeOfARootThatCan(t *testing.T) {
	s := newSandbox(t)
	wantStates(t, s.probe(s.attr(0)), map[State]string{
		Yes: "cgroup v2, delegation, delegation: nested, controllers, swap accounting, CLONE_INTO_CGROUP, kernel, " +
			"exit status by pidfd, kernel log, memory, user namespaces, seccomp, overlayfs, " + leafChecks,
		No:      "systemd",
		Unknown: "delegation: root, delegation: systemd-user, delegation: systemd-system",
	})
}

// Without a leaf nothing is claimed of leaves, one way or the other.
func TestProbeOfAUserThatCannot(t *testing.T) {
	s := newSandbox(t)
	got := s.probe(s.attr(someUser))
	wantStates(t, got, map[State]string{
		Yes:     "cgroup v2, controllers, CLONE_INTO_CGROUP, kernel, exit status by pidfd",
		No:      "delegation, delegation: nested, delegation: root, delegation: systemd-user, delegation: systemd-system",
		Unknown: "swap accounting, " + leafChecks,
	})
	nested := got["delegation: nested"]
	if !strings.Contains(nested.Detail, s.path) || !strings.Contains(nested.Detail, "permission denied") || !strings.Contains(nested.Fix, "systemd-run --user --scope -p Delegate=yes") {
		t.Errorf("%+v", nested)
	}
}

func TestProbeOfAReadOnlyHierarchy(t *testing.T) {
	s := newSandbox(t)
	attr := s.attr(0)
	attr.Cloneflags = syscall.CLONE_NEWNS
	p := start(t, attr, "probe-read-only")
	line := p.line()
	p.wait()
	var checks []Check
	if err := json.Unmarshal([]byte(line), &checks); err != nil {
		t.Fatal(err)
	}
	if c := checks[0]; c.State != No || !strings.Contains(c.Detail, "read-only") || c.Fix != "mount -o remount,rw /sys/fs/cgroup" {
		t.Errorf("%+v", c)
	}
}

// Where there is no hierarchy no way is tried, and none is pointed at.
func TestProbeWithoutAHierarchy(t *testing.T) {
	s := newSandbox(t)
	attr := s.attr(0)
	attr.Cloneflags = syscall.CLONE_NEWNS
	p := start(t, attr, "probe-no-mount")
	line := p.line()
	p.wait()
	var checks []Check
	if err := json.Unmarshal([]byte(line), &checks); err != nil {
		t.Fatal(err)
	}
	if c := checks[0]; c.State != No || c.Fix == "" {
		t.Errorf("%+v", c)
	}
	for _, c := range checks {
		if c.Name == DelegationCheck && (c.State != No || c.Fix == "" || strings.Contains(c.Fix, "below")) {
			t.Errorf("%+v", c)
		}
		if strings.HasPrefix(c.Name, DelegationCheck+": ") {
			t.Errorf("%+v was tried", c)
		}
	}
}
