package main

import (
	"strings"
	"testing"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/guest"
)

func TestDiagnose(t *testing.T) {
	host := func(s cgroup.State) []cgroup.Check {
		return []cgroup.Check{
			{Name: "cgroup v2", State: cgroup.Yes, Detail: "mounted at /sys/fs/cgroup"},
			{Name: cgroup.DelegationCheck, State: s, Detail: "D", Fix: "delegate"},
			{Name: cgroup.DelegationCheck + ": " + cgroup.Nested, State: cgroup.No, Detail: "refused", Fix: "use a scope"},
			{Name: "memory.peak", State: cgroup.Unknown, Detail: "no leaf"},
		}
	}
	inGuest := func(s cgroup.State) []cgroup.Check {
		return []cgroup.Check{{Name: guestKernelCheck, State: s, Detail: "K", Fix: "sandrun kernel install"}}
	}
	for name, c := range map[string]struct {
		host, guest   cgroup.State
		where, remedy string
		says, not     string
	}{
		"host":         {cgroup.Yes, cgroup.No, "host", "", "· delegation: nested", "use a scope"},
		"guest":        {cgroup.No, cgroup.Yes, "guest", "", "✗ delegation: nested", "sandrun kernel install"},
		"both":         {cgroup.Yes, cgroup.Yes, "host", "", "a run makes its leaves on this kernel", "fix: delegate"},
		"neither":      {cgroup.No, cgroup.No, "", "sandrun kernel install", "a run would fail: this kernel gives no leaves, and there is no guest kernel; run: sandrun kernel install", "·"},
		"cannot tell":  {cgroup.Unknown, cgroup.Unknown, "", "sandrun kernel install", "? delegation", "a run makes"},
		"fix is given": {cgroup.No, cgroup.Yes, "guest", "", "fix: use a scope", "a run would fail"},
	} {
		t.Run(name, func(t *testing.T) {
			d := diagnose(host(c.host), inGuest(c.guest))
			if d.Where != c.where || d.Remedy != c.remedy {
				t.Errorf("where %q, remedy %q; want %q, %q", d.Where, d.Remedy, c.where, c.remedy)
			}
			var b strings.Builder
			if err := d.print(&b); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), c.says) || strings.Contains(b.String(), c.not) {
				t.Errorf("want %q and not %q in:\n%s", c.says, c.not, b.String())
			}
		})
	}
}

func TestProbeGuest(t *testing.T) {
	checks := probeGuest(guest.Store{Dir: t.TempDir() + "/kernel"})
	if checks[0].State != cgroup.No || checks[0].Fix != "sandrun kernel install" {
		t.Errorf("an empty store: %+v", checks[0])
	}
	if stateOf(checks, "disk") != cgroup.Yes {
		t.Errorf("disk: %+v", checks)
	}
	checks = probeGuest(guest.Store{Override: t.TempDir() + "/absent"})
	if checks[0].State == cgroup.Yes {
		t.Errorf("a kernel that is not there: %+v", checks[0])
	}
	if c := probeDisk(""); c.State != cgroup.No || c.Fix == "" {
		t.Errorf("no cache directory: %+v", c)
	}
}
