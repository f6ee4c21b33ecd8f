package profiles

// The rules that give a figure where a profile states none. They are few, and
// 'sandrun profiles NAME' repeats the one that was used.

const (
	// align is what memory figures are rounded down to: the largest page size of
	// Linux, so that the kernel, which counts in pages, reads back what was written.
	align = 64 * KiB

	// AutoWorker is the least memory that a worker gets under "auto": the size that
	// public pools are made for, and the one that gives back the table of T3 sizes.
	AutoWorker int64 = 2 * GiB

	// leastWorker is the smallest cap that a share may come to: below it not even
	// the runtime of a test binary starts.
	leastWorker = 16 * MiB
	// leastBudget is the least that a run may have: half of it is a worker's.
	leastBudget = 2 * leastWorker
	// leastSize is the smallest cap that may be asked for.
	leastSize = 1 * MiB
	// leastMain and leastMainPids are what flags that were given may leave to main.
	leastMain     = 64 * MiB
	leastMainPids = 32
	// maxPids is the largest value that pids.max takes (PID_MAX_LIMIT).
	maxPids = 4 << 20
	// maxCPUs is more than any kernel can be built for (NR_CPUS is at most 8192).
	maxCPUs = 8192
	// leastCPUs is a quota of 1 ms in a period of 100 ms, the least that cpu.max takes.
	leastCPUs = 0.01
	// cpuPeriod is the kernel's default period of cpu.max, microseconds.
	cpuPeriod = 100_000
	// maxWorkers bounds what -n may be: the leaves of a run have four digits.
	maxWorkers = 9999
)

// DerivedMemory is what a virtual machine that is sold with nominal bytes shows:
// 1/32 and 64 MiB less. It is within 2.1 % of every EC2 figure of the catalogue
// that was measured on x86; the kernel's page structures alone are 1/64.
func DerivedMemory(nominal int64) int64 {
	return max(nominal-nominal/32-64*MiB, nominal/2)
}

// MachinePids is pids.max of the run: what systemd allows a unit by default, 15 % of
// kernel.threads-max, which the kernel sets to one thread for each 128 KiB of memory
// (an eighth of it for stacks of 16 KiB). At least 512, at most the kernel's own limit.
//
// https://docs.kernel.org/admin-guide/sysctl/kernel.html (threads-max),
// https://www.freedesktop.org/software/systemd/man/latest/systemd-system.conf.html (DefaultTasksMax=)
func MachinePids(memory int64) int64 {
	return min(max(memory/(128*KiB)*15/100, 512), maxPids)
}

// WorkerPids is pids.max of a worker: 128 tasks for each CPU, at least 256 and at
// most 1024. A test binary has a few threads for each CPU; a fork bomb is at the cap
// in a moment.
func WorkerPids(vcpus float64) int64 {
	return min(max(int64(128*vcpus), 256), 1024)
}

// MainReserve is what the workers leave to the command itself, which builds while
// they run: 384 MiB for a linker or pytest's controller and 256 MiB for a compiler on
// each CPU, at most 2 GiB and at most half of the budget. (Measured while building
// sandrun itself: the largest compiler 288 MiB, most below 128, the linker 174 MiB,
// which grows with the binary.)
func MainReserve(vcpus float64, budget int64) int64 {
	return min(384*MiB+int64(vcpus*float64(256*MiB)), 2*GiB, budget/2)
}

// AutoWorkers is how many workers fit: as often as unit goes into pool, not more
// than there are whole CPUs, and one at least.
func AutoWorkers(pool, unit int64, vcpus float64) int {
	n := int64(max(vcpus, 1))
	if unit > 0 {
		n = min(n, pool/unit)
	}
	return int(min(max(n, 1), maxWorkers))
}

// HostHeadroom is what the profile "host" leaves to everything else on a machine:
// 15 %, at least 1 GiB and at most 16 GiB, but never more than half.
func HostHeadroom(memory int64) int64 {
	return min(max(memory/100*15, 1*GiB), 16*GiB, memory/2)
}

// roundShare rounds a share down to an eighth of its power of two (768 MiB, 3.25 GiB),
// so that caps are figures one can remember; what is cut off stays with main.
func roundShare(n int64) int64 {
	step := int64(1)
	for n/step >= 16 {
		step *= 2
	}
	return n / max(step, align) * max(step, align)
}

// alignDown rounds a memory figure down so that the kernel reads back what was written.
func alignDown(n int64) int64 { return n / align * align }
