package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// Names in the run directory. Nothing else is made on the host: the file that is
// the guest's memory has no name.
const (
	shareName = "guest"      // directory: the spec and stdin, read by the guest
	initName  = "guest-init" // symbolic link to Machine.Init, if that is no plain path
	umidName  = "uml"        // directory of the kernel process: its pid, its management socket
	swapName  = "guest-swap" // sparse file
)

// Leftovers returns what a machine whose process was killed may leave behind: all
// of it is below its run directory.
func Leftovers(runDir string) []string {
	var paths []string
	for _, name := range []string{shareName, initName, umidName, swapName} {
		p := filepath.Join(runDir, name)
		if _, err := os.Lstat(p); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func removeLeftovers(runDir string) error {
	var errs []error
	for _, p := range Leftovers(runDir) {
		errs = append(errs, os.RemoveAll(p))
	}
	return errors.Join(errs...)
}

// pipeSize is asked for each pipe to or from the guest, in bytes; a larger pipe
// is fewer switches between the two kernels. Without it the default is kept.
const pipeSize = 1 << 20

// wiring are the files between the host and the kernel process.
type wiring struct {
	closers []io.Closer
	ours    map[string]*os.File
	theirs  []*os.File // the child's descriptors from 3
	args    []string   // the kernel's arguments for its lines
}

func (w *wiring) close() {
	for _, c := range w.closers {
		_ = c.Close()
	}
}

// pipe makes a pipe and returns the host's end and the number of the child's.
func (w *wiring) pipe(toGuest bool) (ours *os.File, fd int, err error) {
	r, wr, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	_ = sys.Control(r, func(fd int) error {
		_, err := sys.SetPipeSize(fd, pipeSize)
		return err
	})
	ours, theirs := r, wr
	if toGuest {
		ours, theirs = wr, r
	}
	w.closers = append(w.closers, ours)
	return ours, w.give(theirs), nil
}

// give passes a file to the child and returns its number there.
func (w *wiring) give(f *os.File) int {
	w.theirs = append(w.theirs, f)
	return 2 + len(w.theirs)
}

// line makes a serial line of the guest from channels as "fd:3" or "null".
func (w *wiring) line(n int, in, out string) {
	w.args = append(w.args, fmt.Sprintf("ssl%d=%s,%s", n, in, out))
}

func channel(fd int) string { return "fd:" + strconv.Itoa(fd) }

// kernelArgs is the kernel's command line, but for the lines and devices.
func (m *Machine) kernelArgs() []string {
	root := "rw"
	if m.Overlay {
		root = "ro" // before anything runs: see enterOverlay
	}
	return append([]string{
		"mem=" + strconv.FormatInt(m.Memory>>10, 10) + "K",
		"seccomp=on", // traces with seccomp: half the cost of ptrace a system call
		"rootfstype=hostfs", "rootflags=/", root,
		"init=" + m.initPath(),
		shareEnv + "=" + filepath.Join(m.RunDir, shareName),
		"con=null", "con0=null,fd:1", "ssl=null",
		"quiet", "panic=-1",
		// What a stock kernel measures for a second at boot.
		"lpj=33968128", "initcall_blacklist=raid6_init",
		"uml_dir=" + m.RunDir, "umid=" + umidName,
	}, m.extraArgs...)
}

// initPath is Init in a form that the kernel's command line can carry: itself, or
// a link that start makes.
func (m *Machine) initPath() string {
	if plainPath(m.Init) {
		return m.Init
	}
	return filepath.Join(m.RunDir, initName)
}

// startKernel starts the kernel process and returns a channel that says how it
// ended. It dies with this process: the thread that forks it lives as long.
func startKernel(cmd *exec.Cmd, cpu int) (<-chan error, error) {
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() {
		// Never unlocked: the thread's file mode mask and processor are its own,
		// and the signal for the death of a parent is sent when the thread goes.
		runtime.LockOSThread()
		err := sys.ThreadUmask(0) // the guest has a mask of its own
		if err == nil {
			err = sys.BindThread(cpu)
		}
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			// A kernel that panics aborts; its memory is no core to keep.
			if err = sys.NoCore(cmd.Process.Pid); err != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	return exited, <-started
}

func (m *Machine) writeSpec(s *spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.RunDir, shareName, specFile), b, 0o600)
}

// hostFacts gathers what a guest may know of the host.
func (m *Machine) hostFacts(cpu int) Facts {
	f := Facts{
		HostKernel: sys.KernelRelease(),
		Memory:     m.Memory, Swap: m.Swap, Overlay: m.Overlay, Network: string(m.Network),
		UID: os.Geteuid(), GID: os.Getegid(), CPU: cpu,
	}
	f.Groups, _ = os.Getgroups() // none is no fault
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		f.MaxMapCount, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	return f
}

// kill ends the kernel process and the processes that it traces.
func killKernel(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
