package profiles

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestResolveOverrides(t *testing.T) {
	type want struct {
		budget, swap, pids int64
		workers            int
		worker             Caps
	}
	const small = 1741750272 // t3.small: 2010214400 less 256 MiB
	for _, tt := range []struct {
		name, profile string
		o             Overrides
		want          want
		note          string
	}{
		{"nothing", "t3.small", Overrides{}, want{small, 0, 2300, 1, Caps{768 * MiB, 0, 256}}, ""},
		{"memory is the budget", "t3.small", Overrides{Memory: "3G"}, want{3 * GiB, 0, 3686, 1, Caps{2 * GiB, 0, 256}}, ""},
		{"memory of the profile's", "t3.small", Overrides{Memory: "50%"}, want{1005060096, 0, 1150, 1, Caps{448 * MiB, 0, 256}}, ""},
		{"memory in decimal", "t3.large", Overrides{Memory: "3GB"}, want{2999975936, 0, 3433, 2, Caps{960 * MiB, 0, 256}}, ""},
		{"swap is shared", "t3.large", Overrides{Swap: "1G"}, want{7939096576, GiB, 9392, 2, Caps{3328 * MiB, 512 * MiB, 256}}, ""},
		{"swap of the profile's", "workstation-16c", Overrides{Swap: "50%"}, want{18 * GiB, 4 * GiB, 38092, 6, Caps{2999975936, alignDown(4 * GiB / 6), 1000}}, ""},
		{"no swap", "workstation-16c", Overrides{Swap: "0"}, want{18 * GiB, 0, 38092, 6, Caps{2999975936, 0, 1000}}, ""},
		{"pids", "t3.small", Overrides{Pids: "300"}, want{small, 0, 300, 1, Caps{768 * MiB, 0, 225}}, ""},
		{"cpus change main's part and the tasks", "t3.xlarge", Overrides{CPUs: "1"}, want{16293625856, 0, 18953, 3, Caps{4608 * MiB, 0, 256}}, ""},
		{"cpus bound auto", "t3.2xlarge", Overrides{CPUs: "2.5"}, want{33002815488, 0, 38075, 2, Caps{14 * GiB, 0, 320}}, ""},
		{"more workers share", "t3.large", Overrides{Workers: "4"}, want{7939096576, 0, 9392, 4, Caps{1664 * MiB, 0, 256}}, ""},
		{"fewer workers share", "t3.large", Overrides{Workers: "1"}, want{7939096576, 0, 9392, 1, Caps{6656 * MiB, 0, 256}}, ""},
		{"the same number changes nothing", "t3.small", Overrides{Workers: "1"}, want{small, 0, 2300, 1, Caps{768 * MiB, 0, 256}}, ""},
		{"a stated cap stays", "workstation-16c", Overrides{Workers: "4"}, want{18 * GiB, 8 * GiB, 38092, 4, Caps{2999975936, GiB, 1000}}, ""},
		{"a stated cap that does not fit", "workstation-16c", Overrides{Workers: "8"}, want{18 * GiB, 8 * GiB, 38092, 8, Caps{2 * GiB, GiB, 1000}}, ""},
		{"a stated cap bounds the workers", "workstation-16c", Overrides{Memory: "9GiB"}, want{9 * GiB, 8 * GiB, 11059, 2, Caps{2999975936, GiB, 1000}}, ""},
		{"auto", "t3.large", Overrides{Workers: "auto"}, want{7939096576, 0, 9392, 2, Caps{3328 * MiB, 0, 256}}, ""},
		{"auto with a cap", "t3.2xlarge", Overrides{WorkerMemory: "4G"}, want{33002815488, 0, 38075, 7, Caps{4 * GiB, 0, 1024}}, ""},
		{"auto is bounded by CPUs", "t3.2xlarge", Overrides{WorkerMemory: "1G"}, want{33002815488, 0, 38075, 8, Caps{GiB, 0, 1024}}, ""},
		{"a cap keeps the profile's workers", "t3.xlarge", Overrides{WorkerMemory: "1G"}, want{16293625856, 0, 18953, 3, Caps{GiB, 0, 512}}, ""},
		{"a cap that fewer of them fit", "t3.xlarge", Overrides{WorkerMemory: "6G"}, want{16293625856, 0, 18953, 2, Caps{6 * GiB, 0, 512}}, ""},
		{"a cap of the budget's", "t3.large", Overrides{WorkerMemory: "25%"}, want{7939096576, 0, 9392, 2, Caps{alignDown(7939096576 / 4), 0, 256}}, ""},
		{"a cap into main's part", "t3.small", Overrides{WorkerMemory: "1G"}, want{small, 0, 2300, 1, Caps{GiB, 0, 256}}, "the command itself is left with 637.1 MiB"},
		{"both are taken", "t3.small", Overrides{Workers: "2", WorkerMemory: "700M"}, want{small, 0, 2300, 2, Caps{700 * MiB, 0, 256}}, "the command itself is left with 261.1 MiB"},
		{"worker swap", "workstation-16c", Overrides{WorkerSwap: "64M"}, want{18 * GiB, 8 * GiB, 38092, 6, Caps{2999975936, 64 * MiB, 1000}}, ""},
		{"worker swap of 0", "github-public", Overrides{WorkerSwap: "0"}, want{15827992576, alignDown(4194300 * KiB), 19188, 4, Caps{3328 * MiB, 0, 512}}, ""},
		{"worker swap of the run's", "t3.large", Overrides{Swap: "2G", WorkerSwap: "25%"}, want{7939096576, 2 * GiB, 9392, 2, Caps{3328 * MiB, 512 * MiB, 256}}, ""},
		{"worker pids", "t3.small", Overrides{WorkerPids: "2000"}, want{small, 0, 2300, 1, Caps{768 * MiB, 0, 2000}}, ""},
		{"everything", "t3.nano", Overrides{"4G", "1G", "1000", "0.5", "3", "1G", "256M", "100"}, want{4 * GiB, GiB, 1000, 3, Caps{GiB, 256 * MiB, 100}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := resolve(t, tt.profile, tt.o)
			checkMachine(t, m)
			if got := (want{m.Budget, m.Swap, m.Pids, m.Workers, m.Worker}); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			notes := strings.Join(m.Notes, "\n")
			if tt.note == "" && notes != "" || !strings.Contains(notes, tt.note) {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
		})
	}
}

// What does not fit is refused with both numbers and the flags that would help.
func TestResolveErrors(t *testing.T) {
	for _, tt := range []struct {
		profile string
		o       Overrides
		want    string
	}{
		{"t3.small", Overrides{WorkerMemory: "4G"}, "profile t3.small: --worker-memory: one worker of 4 GiB does not fit the 1.6 GiB of the run (1.9 GiB less operating system 192 MiB, CI agent 64 MiB; 64 MiB are the command's at least): lower --worker-memory, raise --memory, or name a larger --profile"},
		{"t3.small", Overrides{WorkerMemory: "100%"}, "--worker-memory: one worker of 1.6 GiB does not fit the 1.6 GiB of the run"},
		{"t3.small", Overrides{Workers: "4", WorkerMemory: "1G"}, "--workers: 4 workers of 1 GiB do not fit the 1.6 GiB of the run (1.9 GiB less operating system 192 MiB, CI agent 64 MiB; 64 MiB are the command's at least): lower --workers or --worker-memory, raise --memory"},
		{"t3.small", Overrides{Workers: "2", WorkerMemory: "801M"}, "--workers: 2 workers of 801 MiB do not fit"},
		{"t3.small", Overrides{Workers: "99"}, "--workers: 99 workers would share 830.5 MiB, 8.4 MiB each, and a worker needs 16 MiB at least"},
		{"t3.small", Overrides{Workers: "0"}, "--workers: 0 is out of range; give a whole number from 1 to 9999, or auto"},
		{"t3.small", Overrides{Workers: "-1"}, "--workers: -1 is out of range"},
		{"t3.small", Overrides{Workers: "two"}, `--workers: "two" is no whole number`},
		{"t3.small", Overrides{Workers: "+2"}, `--workers: "+2" is no whole number`},
		{"t3.small", Overrides{Workers: "99999999999999999999"}, "--workers: 99999999999999999999 is out of range"},
		{"t3.small", Overrides{Workers: "3-4"}, `--workers: "3-4" is no whole number`},
		{"t3.small", Overrides{Memory: "-1"}, `--memory: "-1" is negative`},
		{"t3.small", Overrides{Memory: "0"}, `--memory: "0" is 0 bytes, less than the least`},
		{"t3.small", Overrides{Memory: "2"}, "did you leave out the unit?"},
		{"t3.small", Overrides{Memory: "20M"}, "--memory: 20 MiB is less than a run needs, 32 MiB"},
		{"t3.small", Overrides{Memory: "8388608T"}, "more than 8 EiB"},
		{"t3.small", Overrides{Swap: "50%"}, `--swap: "50%" has nothing to be a part of here`},
		{"t3.small", Overrides{Swap: "12"}, "did you leave out the unit?"},
		{"t3.small", Overrides{WorkerSwap: "64M"}, "--worker-swap: 1 × 64 MiB do not fit the 0 of swap of the run: lower --worker-swap or --workers, or raise --swap"},
		{"workstation-16c", Overrides{WorkerSwap: "4G"}, "--worker-swap: 6 × 4 GiB do not fit the 8 GiB of swap of the run"},
		{"t3.small", Overrides{Pids: "10"}, "--pids: 10 is out of range; give a whole number from 64 to 4194304"},
		{"t3.small", Overrides{WorkerPids: "0"}, "--worker-pids: 0 is out of range"},
		{"t3.small", Overrides{WorkerPids: "2290"}, "--worker-pids: 1 × 2290 tasks do not fit the 2300 of the run, 32 of which are the command's"},
		{"t3.2xlarge", Overrides{Workers: "100", Pids: "64"}, "--workers: 100 workers do not fit the 64 tasks of the run: lower --workers or raise --pids"},
		{"t3.small", Overrides{CPUs: "0"}, "--cpus: 0 CPUs is out of range, 0.01 to 8192"},
		{"t3.small", Overrides{CPUs: "0.001"}, "--cpus: 0.001 CPUs is out of range"},
		{"t3.small", Overrides{CPUs: "NaN"}, `--cpus: "NaN" is no number`},
		{"t3.small", Overrides{CPUs: "Inf"}, `--cpus: "Inf" is no number`},
		{"t3.small", Overrides{CPUs: "1e3"}, `--cpus: "1e3" is no number`},
		{"t3.small", Overrides{CPUs: "0x2"}, `--cpus: "0x2" is no number`},
	} {
		m, err := catalogue(t).Resolve(tt.profile, tt.o, testHost)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %+v:\ngot  %v\nwant %s", tt.profile, tt.o, err, tt.want)
		}
		if m.Profile != nil || m.Budget != 0 {
			t.Errorf("%s %+v: a machine beside the error", tt.profile, tt.o)
		}
	}
}

func TestHostProfile(t *testing.T) {
	for _, tt := range []struct {
		name    string
		h       Host
		memory  int64
		budget  int64
		swap    int64
		vcpus   float64
		workers int
		cap     int64
	}{
		{"a small container", Host{CPUs: 2, Memory: 4 * GiB}, 4 * GiB, 3 * GiB, 0, 2, 1, 2 * GiB},
		{"a laptop", Host{CPUs: 8, Memory: 16 * GiB, Swap: 2 * GiB}, 16 * GiB, alignDown(16*GiB - 16*GiB/100*15), 2 * GiB, 8, 5, 2304 * MiB},
		{"a workstation", Host{CPUs: 16, Memory: 64 * GiB, Swap: 8 * GiB}, 64 * GiB, alignDown(64*GiB - 64*GiB/100*15), 8 * GiB, 16, 16, 3328 * MiB},
		{"a server keeps 16 GiB", Host{CPUs: 64, Memory: 512 * GiB}, 512 * GiB, 496 * GiB, 0, 64, 64, 7680 * MiB},
		{"a tiny machine keeps half", Host{CPUs: 1, Memory: 1 * GiB}, 1 * GiB, 512 * MiB, 0, 1, 1, 256 * MiB},
		{"the limit of a container", Host{CPUs: 16, Memory: 64 * GiB, Swap: 8 * GiB, Limit: 4 * GiB, SwapLimit: -1, CPULimit: 1.5}, 4 * GiB, 3 * GiB, 0, 1.5, 1, 2304 * MiB},
		{"a limit above the memory", Host{CPUs: 2, Memory: 4 * GiB, Limit: 8 * GiB}, 4 * GiB, 3 * GiB, 0, 2, 1, 2 * GiB},
		{"a limit on swap", Host{CPUs: 2, Memory: 4 * GiB, Swap: 8 * GiB, SwapLimit: GiB}, 4 * GiB, 3 * GiB, GiB, 2, 1, 2 * GiB},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := catalogue(t).Resolve("host", Overrides{}, tt.h)
			if err != nil {
				t.Fatal(err)
			}
			checkMachine(t, m)
			if m.Memory != tt.memory || m.Budget != tt.budget || m.Swap != tt.swap || m.VCPUs != tt.vcpus || m.Workers != tt.workers || m.Worker.Memory != tt.cap {
				t.Errorf("%s, budget %d, %d workers of %d", m.Summary(), m.Budget, m.Workers, m.Worker.Memory)
			}
			if m.Worker.Swap != 0 {
				t.Errorf("a worker may swap %d unasked", m.Worker.Swap)
			}
			if len(m.Notes) != 0 {
				t.Errorf("the host is said to be too small for itself: %q", m.Notes)
			}
		})
	}
	for _, h := range []Host{{}, {CPUs: 2}, {Memory: GiB}, {CPUs: 1, Memory: 60 * MiB}} {
		if _, err := catalogue(t).Resolve("host", Overrides{}, h); err == nil {
			t.Errorf("a machine was made of %+v", h)
		}
	}
}

// A machine larger than this host is run, with a word on what that means.
func TestNotes(t *testing.T) {
	m, err := catalogue(t).Resolve("workstation-16c", Overrides{}, Host{CPUs: 2, Memory: 64 * GiB, Limit: 4 * GiB, Swap: GiB})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"this host has 4 GiB of memory, less than the 18 GiB of the run: the host may be full before a cap is met",
		"this host has 1 GiB of swap, less than the 8 GiB of the run",
		"this host has 2 CPUs, less than the 16 of the machine: runs take longer than on the real one",
	} {
		if i >= len(m.Notes) || m.Notes[i] != want {
			t.Errorf("notes %q, want %q", m.Notes, want)
		}
	}
}

// A machine is handed to another process as JSON; every number must arrive.
func TestMachineAsJSON(t *testing.T) {
	m := resolve(t, "workstation-16c", Overrides{Workers: "4"})
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got Machine
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	checkMachine(t, got)
	if got.Summary() != m.Summary() || got.Worker != m.Worker || got.Main != m.Main || got.Workers != m.Workers {
		t.Errorf("got %+v, want %+v", got, m)
	}
}

// FuzzResolve: whatever the flags say, a machine holds together or is refused.
func FuzzResolve(f *testing.F) {
	f.Add("t3.small", "", "", "", "", "", "", "", "")
	f.Add("t3.2xlarge", "50%", "1G", "64", "0.01", "auto", "1M", "50%", "1")
	f.Add("host", "32M", "0", "4194304", "8192", "9999", "99%", "0", "4194304")
	f.Add("workstation-16c", "9223372036854775807", "9223372036854775807", "100", "3", "7", "", "100%", "")
	f.Add("lambda-128", "32M", "64K", "", "", "2", "", "", "")
	f.Fuzz(func(t *testing.T, name, memory, swap, pids, cpus, workers, wm, ws, wp string) {
		m, err := catalogue(t).Resolve(name, Overrides{memory, swap, pids, cpus, workers, wm, ws, wp}, Host{CPUs: 2, Memory: 4 * GiB})
		if err != nil {
			return
		}
		checkMachine(t, m)
		for _, w := range m.Files() {
			if w.Value == "" || w.Why == "" {
				t.Errorf("%s/%s: value %q, why %q", w.Cgroup, w.File, w.Value, w.Why)
			}
		}
	})
}
