package profiles

import (
	"strings"
	"testing"
	"testing/fstest"
)

const meminfo = `MemTotal:       16374544 kB
MemFree:         9695984 kB
MemAvailable:   15517312 kB
SwapCached:            0 kB
SwapTotal:       4194300 kB
SwapFree:        4194300 kB
HugePages_Total:       0
`

func TestReadHost(t *testing.T) {
	const v2 = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	const v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	base := Host{CPUs: 4, Memory: 16374544 * KiB, Swap: 4194300 * KiB}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  func(*Host)
	}{
		{"no cgroups", nil, func(*Host) {}},
		{"no limits", map[string]string{
			"proc/self/cgroup": "0::/user.slice\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/user.slice/memory.max":      "max\n",
			"sys/fs/cgroup/user.slice/memory.swap.max": "max\n",
			"sys/fs/cgroup/user.slice/cpu.max":         "max 100000\n",
		}, func(*Host) {}},
		{"the smallest on the way up", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/a/b/memory.max":      "8589934592\n",
			"sys/fs/cgroup/a/memory.max":        "4294967296\n",
			"sys/fs/cgroup/a/memory.swap.max":   "1073741824\n",
			"sys/fs/cgroup/a/b/memory.swap.max": "2147483648\n",
			"sys/fs/cgroup/a/cpu.max":           "150000 100000\n",
			"sys/fs/cgroup/a/b/cpu.max":         "300000 100000\n",
		}, func(h *Host) { h.Limit, h.SwapLimit, h.CPULimit = 4*GiB, GiB, 1.5 }},
		{"a cgroup namespace of its own", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/memory.max":      "536870912\n",
			"sys/fs/cgroup/memory.swap.max": "0\n",
		}, func(h *Host) { h.Limit, h.SwapLimit = 512*MiB, -1 }},
		{"a mount of a part of the tree", map[string]string{
			"proc/self/cgroup":           "0::/docker/x/y\n",
			"proc/self/mountinfo":        "31 23 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/y/memory.max": "1073741824\n",
		}, func(h *Host) { h.Limit = GiB }},
		{"another part is mounted", map[string]string{
			"proc/self/cgroup":         "0::/docker/xyz\n",
			"proc/self/mountinfo":      "31 23 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.max": "1073741824\n",
		}, func(*Host) {}},
		{"no swap in one, some in the other", map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/a/memory.swap.max": "0\n", "sys/fs/cgroup/memory.swap.max": "1048576\n",
		}, func(h *Host) { h.SwapLimit = -1 }},
		{"a limit above the memory", map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/memory.max": "99999999999999\n",
		}, func(*Host) {}},
		{"version 1", map[string]string{
			"proc/self/cgroup": "4:memory:/job\n0::/\n", "proc/self/mountinfo": v1,
			"sys/fs/cgroup/memory/job/memory.stat": "cache 1\nhierarchical_memory_limit 2147483648\nhierarchical_memsw_limit 9223372036854771712\n",
		}, func(h *Host) { h.Limit = 2 * GiB }},
		{"nonsense", map[string]string{
			"proc/self/cgroup": "\n:::\n0::/a\n4:memory\n", "proc/self/mountinfo": "x - y\n" + v2,
			"sys/fs/cgroup/a/memory.max": "lots\n", "sys/fs/cgroup/a/cpu.max": "5 0\n", "sys/fs/cgroup/a/memory.swap.max": "-7\n",
		}, func(*Host) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got, err := readHost(root, 4)
			if err != nil {
				t.Fatal(err)
			}
			want := base
			tt.want(&want)
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestReadHostErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "it has no MemTotal",
		"MemFree: 12 kB\n":                    "it has no MemTotal",
		"MemTotal: many kB\n":                 `MemTotal is "many kB", not a number of kB`,
		"MemTotal: 12 MB\n":                   `MemTotal is "12 MB", not a number of kB`,
		"MemTotal: -12 kB\n":                  "not a number of kB",
		"MemTotal: 99999999999999999999 kB":   "not a number of kB",
		"MemTotal: 1 kB\nSwapTotal: 1 2 kB\n": "SwapTotal is",
	} {
		_, err := readHost(fstest.MapFS{"proc/meminfo": {Data: []byte(in)}}, 1)
		if err == nil || !strings.Contains(err.Error(), "/proc/meminfo") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", in, err, want)
		}
	}
	if _, err := readHost(fstest.MapFS{}, 1); err == nil {
		t.Error("a machine without /proc was read")
	}
}

// This machine, whatever it is, gives a run.
func TestReadThisHost(t *testing.T) {
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalogue(t).Resolve("host", Overrides{}, h)
	if err != nil {
		t.Fatal(err)
	}
	checkMachine(t, m)
}
