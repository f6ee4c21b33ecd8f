package guest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// memoryDir returns a directory for the file that is the guest's memory: the
// kernel makes it there, removes its name at once and runs programs from it.
func memoryDir(size int64, runDir string) (string, error) {
	var tried []string
	for _, dir := range memoryDirs(runDir) {
		why := unfit(dir, size)
		if why == "" {
			return dir, nil
		}
		tried = append(tried, dir+" ("+why+")")
	}
	return "", fmt.Errorf("no place for the guest's %s of memory; tried %s: set TMPDIR to a directory with that much free space from which programs may run, or give the guest less memory",
		mib(size), strings.Join(tried, ", "))
}

func memoryDirs(runDir string) []string {
	dirs := []string{"/dev/shm", os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, cache)
	}
	var set []string
	for _, d := range append(dirs, runDir) {
		if filepath.IsAbs(d) && !slices.Contains(set, d) {
			set = append(set, d)
		}
	}
	return set
}

func unfit(dir string, size int64) string {
	space, err := sys.SpaceOf(dir)
	switch {
	case err != nil:
		return err.Error()
	case space.NoExec:
		return "mounted noexec"
	case space.Free < size:
		return mib(space.Free) + " free"
	}
	if err := sys.Writable(dir); err != nil {
		return "not writable: " + err.Error()
	}
	return ""
}

// availableMemory returns MemAvailable of /proc/meminfo in bytes.
func availableMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no MemAvailable in %s", f.Name())
}

// A seat is the host processor that a guest is bound to. The stock kernel has one
// processor, and its system calls are five times as fast when the kernel and the
// processes it traces share one of the host's.
type seat struct {
	cpu   int
	claim net.Conn // names the seat to other guests; nil when it could not
}

// seatKind is what every guest on the host uses.
const seatKind = "sandrun-guest-cpu"

// seatsPerCPU bounds the search; beyond it the load is hopeless anyway.
const seatsPerCPU = 16

// takeSeat chooses the allowed processor with the fewest guests. What else runs
// on the host moves out of the way of a bound guest; only another guest cannot.
// A guest claims its processor by the name of an abstract unix socket (unix(7)),
// which goes with the process that holds it, however that ends.
//
// kind begins the names: guests see those of one kind.
func takeSeat(kind string) (seat, error) {
	cpus, err := sys.Affinity()
	if err != nil {
		return seat{}, err
	}
	first := os.Getpid() % len(cpus) // guests that cannot see each other's claims spread too
	for n := range seatsPerCPU {
		for i := range cpus {
			cpu := cpus[(first+i)%len(cpus)]
			name := fmt.Sprintf("@%s-%d-%d", kind, cpu, n)
			claim, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
			if err == nil {
				return seat{cpu: cpu, claim: claim}, nil
			}
		}
	}
	return seat{cpu: cpus[first]}, nil
}

func (s seat) release() {
	if s.claim != nil {
		_ = s.claim.Close()
	}
}
