package guest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	m, err := parseMounts("rootfs / rootfs rw 0 0\n/dev/root / hostfs ro,relatime,/ 0 0\nproc /proc proc rw 0 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if root := m.last("/"); root == nil || root.fstype != "hostfs" || !root.readOnly {
		t.Errorf("root %+v", root)
	}
	if m.last("/pro") != nil {
		t.Error("/pro is mounted")
	}
	if _, err := parseMounts("what is this\n"); err == nil {
		t.Error("a line of three fields: no error")
	}
}

// snapshot hashes all that a tree is: names, modes, sizes, times and contents.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(sum, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, _ = sum.Write(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func TestOverlayLeavesTheHostAsItWas(t *testing.T) {
	tree := t.TempDir()
	for _, name := range []string{"changed", "removed", "renamed", "mode"} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("changed", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, tree)
	m := shell(t, `set -e
echo more >> link; rm removed; mv renamed other; chmod 600 mode; mkdir -p new/deep; echo x > new/deep/file; chown 1:1 changed
echo "$(cat changed)|$(ls)"`)
	m.Dir = tree
	if got := strings.Fields(strings.ReplaceAll(mustRun(t, m), "|", "\n")); strings.Join(got, " ") != "changedmore changed link mode new other" {
		t.Errorf("inside: %q", got)
	}
	if snapshot(t, tree) != before {
		t.Errorf("the overlay let a change through to %s", tree)
	}
}

// Nothing inside shows a way back: no mount is of the host's files, and the root
// is the overlay.
func TestOverlayIsTheRoot(t *testing.T) {
	m, err := parseMounts(mustRun(t, newMachine(t, "/bin/cat", "/proc/self/mounts")))
	if err != nil {
		t.Fatal(err)
	}
	if root := m.last("/"); root.fstype != "overlay" {
		t.Errorf("the root is %v", root)
	}
	for _, e := range m {
		if e.fstype == rootType {
			t.Errorf("%s is of the host's files", e.target)
		}
	}
}

// An overlay that cannot be made ends the machine before the command starts.
func TestOverlayThatCannotBeMade(t *testing.T) {
	for name, module := range map[string][]byte{"missing": nil, "no module": []byte("not a kernel module")} {
		t.Run(name, func(t *testing.T) {
			m := shell(t, "echo started")
			m.Modules = t.TempDir()
			if module != nil {
				if err := os.WriteFile(filepath.Join(m.Modules, "overlay.ko"), module, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := fails(t, m, ErrInit, ""); !strings.Contains(got, "overlay.ko") {
				t.Errorf("the message names no module: %s", got)
			}
			if out, err := os.ReadFile(m.Stdout.Name()); err != nil || len(out) > 0 {
				t.Errorf("the command printed %q, %v", out, err)
			}
		})
	}
}

// Process 1 does not believe the host alone: what was asked for and how the
// kernel was booted have to agree.
func TestRootMustBeWhatWasAskedFor(t *testing.T) {
	for _, c := range []struct {
		overlay bool
		arg     string
		want    string
	}{
		{overlay: true, arg: "rw", want: "booted for writing, and an overlay was asked for"},
		{overlay: false, arg: "ro", want: "booted for reading only, and no overlay was asked for"},
	} {
		m := shell(t, "echo started")
		m.Overlay = c.overlay
		m.extraArgs = []string{c.arg} // the last of "ro" and "rw" counts
		fails(t, m, ErrInit, c.want)
		if out, err := os.ReadFile(m.Stdout.Name()); err != nil || len(out) > 0 {
			t.Errorf("the command printed %q, %v", out, err)
		}
	}
}

func TestWithoutAnOverlayFilesAreTheHosts(t *testing.T) {
	dir := t.TempDir()
	m := shell(t, "umask 022; echo hello > made; mkdir sub; ln -s made link")
	m.Overlay = false
	m.Dir = dir
	mustRun(t, m)
	b, err := os.ReadFile(filepath.Join(dir, "made"))
	if err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
	for name, mode := range map[string]fs.FileMode{"made": 0o644, "sub": fs.ModeDir | 0o755, "link": fs.ModeSymlink | 0o777} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, st, err, mode)
		}
	}
}
