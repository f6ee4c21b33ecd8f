package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sandrun/sandrun/internal/sys"
)

// Init must be the first call of main, and of TestMain, in a program that is
// used as Machine.Init. It returns at once, unless this process is process 1 of
// a guest that a Machine booted; then it runs the machine and never returns.
//
// Process 1 is a Go program and no shell because its root is the host's own file
// system: each step is checked, and what fails is told to the host and ends the
// machine before anything else has been started.
func Init() {
	if os.Getenv(leaderEnv) != "" && os.Getppid() == 1 && Inside() {
		if err := runLeader(); err != nil {
			fmt.Fprintln(os.Stderr, "sandrun: leader of the terminal's session:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	share := os.Getenv(shareEnv)
	if os.Getpid() != 1 || share == "" {
		return
	}
	// Process 1 of a container gets here too if its environment says so, but it
	// has no kernel that waits for a first sign of life on a serial line.
	i := &initProcess{}
	if err := i.run(share); err != nil {
		i.fail(err)
	}
	sys.Sync()
	fmt.Fprintln(os.Stderr, "sandrun: power off:", sys.PowerOff())
	os.Exit(1) // a kernel without process 1 panics, and the host sees that
}

// An initProcess is the guest's process 1.
type initProcess struct {
	spec  spec
	link  *link
	share int // descriptor of the share, which has no place in the tree
}

func (i *initProcess) fail(err error) {
	if i.link != nil {
		_ = i.link.send(message{Fail: err.Error()})
	}
	fmt.Fprintln(os.Stderr, "sandrun: guest:", err)
}

func (i *initProcess) run(share string) error {
	// Default actions would end process 1, and with it the kernel. They are
	// received, not ignored: what is ignored stays so in the command.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	control, err := openLine(lineControl)
	if err != nil {
		return err
	}
	i.link = newLink(control, control)
	if err := i.link.send(message{Hello: true}); err != nil {
		return err
	}
	if err := os.Unsetenv(shareEnv); err != nil {
		return err
	}
	if err := mountAll(firstMounts); err != nil {
		return err
	}
	if err := i.openShare(share); err != nil {
		return err
	}
	if err := i.readSpec(); err != nil {
		return err
	}
	if err := i.enterRoot(); err != nil {
		return err
	}
	if err := i.prepare(); err != nil {
		return err
	}
	return i.command()
}

func openLine(n int) (*os.File, error) { return sys.OpenSerial(fmt.Sprintf("/dev/ttyS%d", n)) }

// shareMount is where the share is seen for a moment.
const shareMount = "/run/sandrun/share"

// openShare opens the share and takes it out of the tree again: the command is
// not to see it, and over an overlay it would be a way back to the host's files.
func (i *initProcess) openShare(host string) (err error) {
	// The directory above holds the sockets of runs too, for users who pass through it.
	if err := os.MkdirAll(filepath.Dir(shareMount), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(shareMount, 0o700); err != nil {
		return err
	}
	// It is mounted by itself because the guest's own mounts may hide it.
	if err := sys.Mount("share", shareMount, "hostfs", sys.MountReadOnly|sys.MountNoSUID|sys.MountNoDev|sys.MountNoExec, host); err != nil {
		return err
	}
	if i.share, err = sys.OpenDir(shareMount); err != nil {
		return fmt.Errorf("open the share: %w", err)
	}
	if err := sys.DetachMount(shareMount); err != nil {
		return err
	}
	return os.Remove(shareMount)
}

// openShared opens a file of the share for reading.
func (i *initProcess) openShared(name string) (*os.File, error) {
	fd, err := sys.OpenAt(i.share, name)
	if err != nil {
		return nil, fmt.Errorf("open %s of the share: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (i *initProcess) readSpec() error {
	f, err := i.openShared(specFile)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := json.NewDecoder(f).Decode(&i.spec); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	return nil
}

// prepare makes the guest what a command expects of a machine.
func (i *initProcess) prepare() error {
	if err := mountAll(mounts); err != nil {
		return err
	}
	for _, l := range links {
		if err := os.Symlink(l.target, l.name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := sys.SetHostname(i.spec.Hostname); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := sys.LinkUp("lo"); err != nil {
		return err
	}
	if i.spec.Network == NetworkPasst {
		if err := configurePasst(); err != nil {
			return err
		}
	}
	if i.spec.Swap {
		if err := sys.SwapOn(swapDevice); err != nil {
			return err
		}
	}
	return i.writeFacts()
}

// swapDevice is the block device over the swap file, ubd0 of the command line.
const swapDevice = "/dev/ubda"

func (i *initProcess) writeFacts() error {
	f := i.spec.Facts
	f.Kernel = sys.KernelRelease()
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(factsPath), 0o755); err != nil {
		return err
	}
	return os.WriteFile(factsPath, append(b, '\n'), 0o444)
}
