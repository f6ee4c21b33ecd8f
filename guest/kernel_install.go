package guest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// The package file that sandrun was developed with. One of another version is
// trusted by Debian's signature, and used if it passes the self-test.
const (
	knownGoodVersion = "7.2um1"
	knownGoodSHA256  = "f947c9244fd79d481299df2ad68961f6b3b7703bff38c4b0e726f861161da62c"
)

const (
	installSpace = 256 << 20 // bytes free: index files, package and kernel take about half of it
	memberMax    = 64 << 20  // bytes of one file of the package
	toolTimeout  = time.Minute
)

// kernelModules are the modules that a machine may load.
var kernelModules = []string{"overlay.ko", "zram.ko", "tun.ko", "veth.ko", "fuse.ko"}

// InstallOptions say where Install fetches from; the zero value will do.
type InstallOptions struct {
	Suites  []string  // of Debian, in the order they are tried; default testing, unstable
	Mirror  string    // URL of a Debian archive; default: those that this machine's apt uses
	Keyring string    // file of the keys to check it with; default Debian's own
	Force   bool      // install although a good one is there
	Init    string    // program for the self-test, see Machine.Init; default: this one
	Log     io.Writer // told what happens, a line each; nil: nobody
}

// Install fetches Debian's User Mode Linux with the machine's apt, checked against
// Debian's keys, makes it run with this machine's libc, boots it, and only then puts
// it into the store. It needs no root and changes nothing outside of s.Dir. Several
// may run at once: one of them works, and the others find it done.
func (s Store) Install(ctx context.Context, o InstallOptions) error {
	err := s.install(ctx, o)
	if errors.Is(err, ErrFetch) && ctx.Err() == nil {
		err = fmt.Errorf("%w\n(another archive: --mirror URL; a kernel of your own: %s=PATH)", err, KernelEnv)
	}
	if err != nil {
		return fmt.Errorf("install the guest kernel: %w", err)
	}
	return nil
}

func (s Store) install(ctx context.Context, o InstallOptions) (err error) {
	if err := s.usable(); err != nil {
		return err
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if len(o.Suites) == 0 {
		o.Suites = []string{"testing", "unstable"}
	}
	if o.Keyring == "" {
		o.Keyring = debianKeyring
	}
	if o.Init == "" {
		if o.Init, err = os.Executable(); err != nil {
			return err
		}
	}
	unlock, err := s.lock(ctx, true, o.Log)
	if err != nil {
		return err
	}
	defer unlock()
	s.Override = ""
	before, err := s.Status()
	if err == nil && !o.Force {
		fmt.Fprintf(o.Log, "the guest kernel %s is installed already, in %s\n", before.Manifest.Release, s.Dir)
		return nil
	}
	if err := s.sweep(); err != nil {
		return err
	}
	if space, err := sys.SpaceOf(s.Dir); err != nil {
		return err
	} else if space.Free < installSpace {
		return fmt.Errorf("%s: %d MiB free, %d MiB needed (XDG_CACHE_HOME names another place)", s.Dir, space.Free>>20, installSpace>>20)
	}
	if err := aptUsable(o.Keyring); err != nil {
		return err
	}
	mirrors := []string{o.Mirror}
	if o.Mirror == "" {
		if mirrors, err = findMirrors(ctx); err != nil {
			return err
		}
	}

	var failed error
	for _, mirror := range mirrors {
		for _, suite := range o.Suites {
			err := s.installFrom(ctx, mirror, suite, o)
			if err == nil {
				return s.sweep() // of the kernel before
			}
			failed = errors.Join(failed, err)
			if ctx.Err() != nil {
				return failed
			}
		}
	}
	return failed
}

// installFrom tries one suite of one archive. The lock is held.
func (s Store) installFrom(ctx context.Context, mirror, suite string, o InstallOptions) (err error) {
	work, err := os.MkdirTemp(s.Dir, "install-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fmt.Fprintf(o.Log, "fetching %s from %s, suite %s\n", kernelPackage, mirror, suite)
	a := archive{dir: filepath.Join(work, "apt"), mirror: mirror, keyring: o.Keyring, suite: suite}
	deb, err := a.fetch(ctx)
	if err != nil {
		return err
	}
	m := &Manifest{Schema: manifestSchema, Package: kernelPackage, Suite: suite}
	if err := m.identify(ctx, deb); err != nil {
		return err
	}
	if !m.KnownGood {
		fmt.Fprintf(o.Log, "%s is %s, sandrun was developed with %s: the self-test decides\n", kernelPackage, m.Version, knownGoodVersion)
	}

	files := filepath.Join(work, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	if err := unpack(ctx, deb, files); err != nil {
		return err
	}
	kernel := filepath.Join(files, kernelFile)
	if m.Lowered, err = fitLibc(ctx, kernel); err != nil {
		return err
	}
	if len(m.Lowered) > 0 {
		fmt.Fprintf(o.Log, "this machine's libc is older than the kernel's: pointed %s at the older form\n", strings.Join(m.Lowered, ", "))
	}
	if m.Release, err = kernelRelease(ctx, kernel); err != nil {
		return err
	}
	if m.SelfTest, err = selfTest(ctx, kernel, o.Init, filepath.Join(work, "run")); err != nil {
		return fmt.Errorf("%s %s of %s: %w", kernelPackage, m.Version, suite, err)
	}
	fmt.Fprintf(o.Log, "self-test: Linux %s booted, ran a command with the controllers %s, and powered off in %.2f s\n",
		m.Release, strings.Join(m.SelfTest.Controllers, " "), m.SelfTest.Seconds)
	return s.commit(work, files, m)
}

// commit puts tested files into the store and makes them the installed ones.
func (s Store) commit(work, files string, m *Manifest) error {
	names, err := os.ReadDir(files)
	if err != nil {
		return err
	}
	for _, n := range names {
		f, err := describeFile(files, n.Name())
		if err != nil {
			return err
		}
		m.Files = append(m.Files, f)
	}
	if err := syncDirectory(files); err != nil {
		return err
	}
	m.Directory = "kernel-" + strings.TrimPrefix(filepath.Base(work), "install-")
	m.Installed = time.Now().UTC().Truncate(time.Second)
	if err := os.Rename(files, filepath.Join(s.Dir, m.Directory)); err != nil {
		return err
	}
	if err := syncDirectory(s.Dir); err != nil {
		return err
	}
	return writeManifest(s.Dir, work, m)
}

// sweep removes what the manifest does not name: the leftovers of earlier
// installs. The lock is held, so nobody is at work in them.
func (s Store) sweep() error {
	keep := []string{manifestFile}
	if m, err := readManifest(s.Dir); err == nil {
		keep = append(keep, m.Directory)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.Dir, e.Name())))
		}
	}
	return err
}

// identify fills in what package file deb is.
func (m *Manifest) identify(ctx context.Context, deb string) error {
	f, err := describeFile(filepath.Dir(deb), filepath.Base(deb))
	if err != nil {
		return err
	}
	version, err := runTool(ctx, "dpkg-deb", "--field", deb, "Version")
	if err != nil {
		return err
	}
	m.Version, m.SHA256 = version, f.SHA256
	m.KnownGood = m.SHA256 == knownGoodSHA256
	if m.Version == knownGoodVersion && !m.KnownGood {
		return fmt.Errorf("%s %s has SHA-256 %s, the known one is %s", kernelPackage, m.Version, m.SHA256, knownGoodSHA256)
	}
	return nil
}

// unpack writes the kernel, its modules and its licence, of package file deb, to dir.
func unpack(ctx context.Context, deb, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var said strings.Builder
	cmd.Stderr = &said
	content, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	names, err := unpackTar(content, dir)
	if err == nil {
		_, err = io.Copy(io.Discard, content)
	}
	if err != nil {
		cancel()
	}
	if wait := cmd.Wait(); wait != nil && err == nil {
		err = fmt.Errorf("dpkg-deb --fsys-tarfile %s: %w\n%s", deb, wait, said.String())
	}
	if err == nil && !slices.Contains(names, kernelFile) {
		err = fmt.Errorf("%s holds no %s", deb, kernelFile)
	}
	return err
}

func unpackTar(content io.Reader, dir string) (names []string, err error) {
	r := tar.NewReader(content)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		} else if err != nil {
			return nil, fmt.Errorf("unpack the kernel: %w", err)
		}
		name, mode := wanted(path.Clean("/" + h.Name))
		if name == "" || h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > memberMax {
			return nil, fmt.Errorf("unpack the kernel: %s has %d bytes, more than %d", h.Name, h.Size, memberMax)
		}
		if err := writeFile(filepath.Join(dir, name), r, mode); err != nil {
			return nil, fmt.Errorf("unpack the kernel: %w", err)
		}
		names = append(names, name)
	}
}

// wanted returns the name and mode in the store of a file of the package, or "".
func wanted(file string) (name string, mode os.FileMode) {
	base := path.Base(file)
	switch {
	case file == "/usr/bin/"+kernelFile:
		return base, 0o755
	case file == "/usr/share/doc/"+kernelPackage+"/copyright", slices.Contains(kernelModules, base):
		return base, 0o644
	}
	return "", 0
}

// fitLibc edits the kernel if this machine's libc is too old for it, and returns
// the functions that were lowered. The kernel prints its version after its libc
// was loaded and before it does anything else: that is the probe.
func fitLibc(ctx context.Context, kernel string) ([]string, error) {
	_, asIs := kernelRelease(ctx, kernel)
	if asIs == nil {
		return nil, nil
	}
	image, err := os.ReadFile(kernel)
	if err != nil {
		return nil, err
	}
	lowered, err := lowerLibc(image)
	if err != nil {
		return nil, fmt.Errorf("the kernel does not run with this machine's libc (%w), and cannot be made to: %w", asIs, err)
	}
	if len(lowered) == 0 {
		return nil, fmt.Errorf("the kernel does not run on this machine: %w", asIs)
	}
	edited := kernel + ".edited"
	f, err := os.OpenFile(edited, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(image)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return lowered, os.Rename(edited, kernel)
}

// kernelRelease asks the kernel for its release.
func kernelRelease(ctx context.Context, kernel string) (string, error) {
	return runTool(ctx, kernel, "--version")
}

// runTool runs a program that answers at once, and returns its output's one line.
func runTool(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}
