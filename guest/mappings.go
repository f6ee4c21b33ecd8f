package guest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// Each page that a guest's process touches away from its neighbours is a memory
// mapping of a host process, and the host allows a process vm.max_map_count of
// them: 65,530 by default, 256 MiB touched at random. Beyond it the guest's
// process dies of SIGSEGV or goes on faulting for ever.

// mappingsMessage is what the guest's kernel says when the host refuses it one
// more mapping: report_enomem in arch/um/kernel/tlb.c.
const mappingsMessage = "UML ran out of memory on the host side"

// Explain says what a guest's kernel log, of /dev/kmsg inside or of Console, has
// to say on a process that died of SIGSEGV or SIGBUS; "" when it has nothing.
func Explain(log string, f Facts) string {
	if !strings.Contains(log, mappingsMessage) {
		return ""
	}
	return mappingsNote(f.MaxMapCount)
}

// ExplainFault says what may be behind a process that died of SIGSEGV or SIGBUS when
// its cgroup had used so many bytes at most: as many pages as the host allows
// mappings; "" when there were fewer. The kernel does not always log the refusal.
func ExplainFault(used int64, f Facts) string {
	if f.MaxMapCount <= 0 || used/int64(os.Getpagesize()) < int64(f.MaxMapCount)*95/100 {
		return ""
	}
	return fmt.Sprintf("it had used %s, and the host allows a process %d memory mappings (vm.max_map_count), in a guest one for each page touched at random: that may be why it died; on the host: sysctl -w vm.max_map_count=%d",
		mib(used), f.MaxMapCount, 16*f.MaxMapCount)
}

func mappingsNote(limit int) string {
	return fmt.Sprintf("the host allows a process %d memory mappings (vm.max_map_count) and a process of the guest has used them up, one for each page it touched at random; on the host: sysctl -w vm.max_map_count=%d", limit, 16*limit)
}

// crowded returns a note when a process that the kernel traces has as many
// mappings as the host allows.
func crowded(kernel, limit int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", kernel, kernel))
	if err != nil || limit <= 0 {
		return "" // no evidence
	}
	for pid := range strings.FieldsSeq(string(b)) {
		if n, err := countMappings(pid); err == nil && n >= limit {
			return mappingsNote(limit)
		}
	}
	return ""
}

// countMappings counts the lines of /proc/PID/maps.
func countMappings(pid string) (int, error) {
	f, err := os.Open("/proc/" + pid + "/maps")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	n := 0
	buf := make([]byte, 64<<10)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
