package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// rootType is the file system by which a guest sees the host's files.
const rootType = "hostfs"

// enterRoot leaves process 1 on the root that the command shall see, and refuses
// any other: the host's own files for writing only if that was asked for, and a
// throw-away layer only if nothing under it can reach them.
func (i *initProcess) enterRoot() error {
	m, err := readMounts()
	if err != nil {
		return err
	}
	root := m.last("/")
	if root == nil || root.fstype != rootType {
		return fmt.Errorf("the root is %v, not the host's files", root)
	}
	if i.spec.Overlay == "" {
		if root.readOnly {
			return errors.New("the root was booted for reading only, and no overlay was asked for")
		}
		return nil
	}
	// Booted with "ro": from here to the end of checkOverlay nothing can write
	// to the host, whatever fails.
	if !root.readOnly {
		return errors.New("the root was booted for writing, and an overlay was asked for")
	}
	if err := enterOverlay(string(i.spec.Overlay)); err != nil {
		return err
	}
	return checkOverlay()
}

const overlayDir = "/run/overlay"

// enterOverlay makes a throw-away layer over the root and moves to it; of the old
// root nothing stays reachable.
func enterOverlay(module string) error {
	have, err := haveFilesystem("overlay")
	if err != nil {
		return err
	}
	if !have {
		if err := sys.LoadModule(module); err != nil {
			return err
		}
	}
	if err := os.Mkdir(overlayDir, 0o755); err != nil {
		return err
	}
	// A tmpfs of its own, for it stays when /run goes. It may fill the memory:
	// its pages are charged to who writes them.
	if err := sys.Mount("overlay", overlayDir, "tmpfs", 0, "mode=755,size=100%"); err != nil {
		return err
	}
	upper, work, root := filepath.Join(overlayDir, "upper"), filepath.Join(overlayDir, "work"), filepath.Join(overlayDir, "root")
	for _, d := range []string{upper, work, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := sys.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	for _, d := range []string{"/proc", "/dev"} {
		if err := sys.MoveMount(d, root+d); err != nil {
			return err
		}
	}
	if err := sys.PivotRoot(root); err != nil {
		return err
	}
	return sys.Mount("tmpfs", "/run", "tmpfs", sys.MountNoSUID|sys.MountNoDev, "mode=755")
}

// checkOverlay refuses to go on unless the root is an overlay and the host's
// files are mounted nowhere.
func checkOverlay() error {
	m, err := readMounts()
	if err != nil {
		return err
	}
	if root := m.last("/"); root == nil || root.fstype != "overlay" {
		return fmt.Errorf("the root is %v after the move to the overlay", root)
	}
	for _, e := range m {
		if e.fstype == rootType {
			return fmt.Errorf("the host's files are still mounted on %s after the move to the overlay", e.target)
		}
	}
	return nil
}

// A mounted is a line of /proc/self/mounts.
type mounted struct {
	target, fstype string
	readOnly       bool
}

func (m *mounted) String() string {
	if m == nil {
		return "not mounted"
	}
	return m.fstype
}

type mountTable []mounted

// readMounts reads the mounts of this process, in the order they were made:
// of two on one place, the later hides the earlier.
func readMounts() (mountTable, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts reads the format of fstab(5): source, target, type, options.
func parseMounts(text string) (mountTable, error) {
	var t mountTable
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("/proc/self/mounts: %q has %d fields", line, len(f))
		}
		option, _, _ := strings.Cut(f[3], ",")
		t = append(t, mounted{target: f[1], fstype: f[2], readOnly: option == "ro"})
	}
	return t, nil
}

func (t mountTable) last(target string) *mounted {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].target == target {
			return &t[i]
		}
	}
	return nil
}

// haveFilesystem reports whether the kernel knows a file system; proc_filesystems(5).
func haveFilesystem(name string) (bool, error) {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true, nil
		}
	}
	return false, nil
}
