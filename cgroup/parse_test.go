package cgroup

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseValue(t *testing.T) {
	for in, want := range map[string]int64{
		"0\n": 0, "4096\n": 4096, "12": 12, "max\n": math.MaxInt64,
		"9223372036854775807": math.MaxInt64, "9223372036854775808": math.MaxInt64, "18446744073709551615": math.MaxInt64,
	} {
		if v, err := parseValue([]byte(in)); err != nil || v != want {
			t.Errorf("parseValue(%q) = %d, %v; want %d", in, v, err, want)
		}
	}
	for _, in := range []string{"", "\n", "-1", "1 2", "0x10", "1\n\n", "maximum"} {
		if v, err := parseValue([]byte(in)); err == nil {
			t.Errorf("parseValue(%q) = %d", in, v)
		}
	}
}

func TestFlatKeyed(t *testing.T) {
	got := make(map[string]int64)
	set := func(key []byte, v int64) { got[string(key)] = v }
	if err := flatKeyed([]byte("low 0\nhigh 1\noom_kill 12"), set); err != nil || len(got) != 3 || got["oom_kill"] != 12 {
		t.Errorf("%v, %v", got, err)
	}
	for _, in := range []string{"low", "low x\n", "low 1 2\n", "\n", "a 1\n\nb 2\n"} {
		if err := flatKeyed([]byte(in), func([]byte, int64) {}); err == nil {
			t.Errorf("flatKeyed(%q): no error", in)
		}
	}
}

func FuzzFlatKeyed(f *testing.F) {
	f.Add([]byte("low 0\nhigh 1\n"))
	f.Add([]byte("anon 18446744073709551615\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := flatKeyed(b, func(key []byte, v int64) {
			if v < 0 || strings.ContainsAny(string(key), " \n") {
				t.Errorf("%q = %d", key, v)
			}
		}); err == nil && len(b) > 0 && !strings.Contains(string(b), " ") {
			t.Errorf("%q was taken", b)
		}
	})
}

// Lines of a real /proc/self/mountinfo: a machine with systemd, a container
// runtime's bind of one cgroup, and a hybrid machine.
const (
	unified = `24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
29 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	bound = `812 811 0:26 /docker/8f /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
`
	hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
)

func TestParseMountinfo(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want hierarchy
		err  string
	}{
		"unified":         {unified, hierarchy{mount: "/sys/fs/cgroup", root: "/"}, ""},
		"bound read-only": {bound, hierarchy{mount: "/sys/fs/cgroup", root: "/docker/8f", readOnly: true}, ""},
		"two":             {unified + strings.ReplaceAll(unified, "/sys/fs/cgroup", `/mnt/a\040b`), hierarchy{mount: "/mnt/a b", root: "/"}, ""},
		"whole first":     {bound + unified + bound, hierarchy{mount: "/sys/fs/cgroup", root: "/"}, ""},
		"hybrid":          {hybrid, hierarchy{}, "cgroup v1 hybrid: the memory controller is bound to v1 at /sys/fs/cgroup/memory"},
		"v1 only":         {strings.Join(strings.SplitAfter(hybrid, "\n")[:3], ""), hierarchy{}, "cgroup v1 only: the memory controller is bound to v1"},
		"none":            {strings.SplitAfter(unified, "\n")[0], hierarchy{}, "no cgroup2 file system is mounted"},
		"broken":          {"1 2 3\n", hierarchy{}, "is no mount"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := parseMountinfo(c.in)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				if c.err != "is no mount" && !errors.Is(err, ErrNotSupported) {
					t.Errorf("%v does not match ErrNotSupported", err)
				}
				return
			}
			if err != nil || h != c.want {
				t.Errorf("%+v, %v; want %+v", h, err, c.want)
			}
		})
	}
}

func FuzzParseMountinfo(f *testing.F) {
	for _, s := range []string{unified, bound, hybrid} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := parseMountinfo(s); err == nil && (h.mount == "" || h.root == "") {
			t.Errorf("%q gave %+v", s, h)
		}
	})
}

func TestDirOfACgroup(t *testing.T) {
	whole, part := hierarchy{mount: "/sys/fs/cgroup", root: "/"}, hierarchy{mount: "/c", root: "/docker/8f"}
	for _, c := range []struct {
		h            hierarchy
		cgroup, want string
		fails        string
	}{
		{whole, "0::/\n", "/sys/fs/cgroup", ""},
		{whole, "9:name=systemd:/\n4:memory:/x\n0::/a/b\n", "/sys/fs/cgroup/a/b", ""},
		{whole, "0::/a (deleted)\n", "/sys/fs/cgroup/a", ""},
		{part, "0::/docker/8f\n", "/c", ""},
		{part, "0::/docker/8f/w\n", "/c/w", ""},
		{part, "0::/docker/8f2\n", "", "is not under /docker/8f"},
		{whole, "0::/../..\n", "", "outside its cgroup namespace"},
		{whole, "4:memory:/x\n", "", "no cgroup v2 line"},
	} {
		got, err := c.h.dir(c.cgroup)
		if c.fails == "" && (err != nil || got != c.want) || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%q under %+v: %q, %v; want %q %s", c.cgroup, c.h, got, err, c.want, c.fails)
		}
	}
}

func TestRelease(t *testing.T) {
	for in, want := range map[string][2]int{"6.18.44-fc-v669": {6, 18}, "5.4.0": {5, 4}, "7.2": {7, 2}, "5.10-rc1": {5, 10}} {
		if a, b, ok := release(in); !ok || a != want[0] || b != want[1] {
			t.Errorf("release(%q) = %d.%d, %v", in, a, b, ok)
		}
	}
	for _, in := range []string{"", "6", "x.y", "6."} {
		if _, _, ok := release(in); ok {
			t.Errorf("release(%q) was taken", in)
		}
	}
}
