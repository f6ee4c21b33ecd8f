package guest

import (
	"encoding/json"
	"errors"
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
		"log_buf_len=1M", // a report of the out-of-memory killer takes 5 KiB, the stock buffer 16
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

// A kernelProcess is the kernel as a process of the host. It dies with this
// process: the thread that forks it lives as long as it does.
type kernelProcess struct {
	*exec.Cmd
	ended chan struct{} // closed when it has ended; its number is still its own
	reap  chan struct{} // closed to let go of that
	how   chan error    // then says how it ended
}

func startKernel(cmd *exec.Cmd, cpu int) (*kernelProcess, error) {
	p := &kernelProcess{Cmd: cmd, ended: make(chan struct{}), reap: make(chan struct{}), how: make(chan error, 1)}
	started := make(chan error, 1)
	go func() {
		// Never unlocked: the thread's file mode mask and processor are its own,
		// and the signal for the death of a parent is sent when the thread goes.
		runtime.LockOSThread()
		err := p.start(cpu)
		started <- err
		if err != nil {
			return
		}
		_ = sys.AwaitExit(cmd.Process.Pid) // an error ends the wait as well
		close(p.ended)
		<-p.reap
		p.how <- cmd.Wait()
	}()
	return p, <-started
}

func (p *kernelProcess) start(cpu int) error {
	if err := sys.ThreadUmask(0); err != nil { // the guest has a mask of its own
		return err
	}
	if err := sys.BindThread(cpu); err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	// A kernel that panics aborts; its memory is no core to keep. It has a file open
	// for each that is open inside, by whichever process.
	if err := errors.Join(sys.NoCore(p.Process.Pid), sys.AllFiles(p.Process.Pid)); err != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		return err
	}
	return nil
}

// signal sends a signal to the kernel and the processes that it traces, which are
// a process group. It is for who has not closed reap yet.
func (p *kernelProcess) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.Process.Pid, s)
	_ = syscall.Kill(p.Process.Pid, s) // should it not lead its group yet
}

func (p *kernelProcess) kill() { p.signal(syscall.SIGKILL) }

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
		MaxMapCount: maxMapCount(),
	}
	f.Groups, _ = os.Getgroups() // none is no fault
	return f
}

// maxMapCount returns vm.max_map_count, 0 when it is not known.
func maxMapCount() int {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}
