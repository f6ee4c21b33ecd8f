package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// KernelEnv names the environment variable that gives a kernel of the user's own
// in the place of the installed one: the path of a User Mode Linux executable with
// its modules beside it.
const KernelEnv = "SANDRUN_KERNEL"

const kernelFile = "linux.uml"

var (
	// ErrNoKernel says that there is no usable kernel in the store.
	ErrNoKernel = errors.New("no guest kernel is installed: run 'sandrun kernel install'")
	// ErrFetch says that Debian's package could not be had, or its signature not be checked.
	ErrFetch = errors.New("cannot fetch the kernel's package")
	// ErrNotSupported says that there is no guest kernel for this machine.
	ErrNotSupported = fmt.Errorf("there is no guest kernel for %s/%s, only for linux/amd64", runtime.GOOS, runtime.GOARCH)
)

// A Store keeps one guest kernel and its modules.
//
// Dir holds manifest.json and the directory that it names. The manifest is put in
// place last, by a rename: what it does not name is a leftover, however complete.
type Store struct {
	Dir      string // absolute; need not exist
	Override string // a kernel that stands before the installed one: see KernelEnv
}

// DefaultStore is ${XDG_CACHE_HOME:-~/.cache}/sandrun/kernel, with the override
// that the environment asks for.
func DefaultStore() Store {
	s := Store{Override: os.Getenv(KernelEnv)}
	if cache, err := os.UserCacheDir(); err == nil {
		s.Dir = filepath.Join(cache, "sandrun", "kernel")
	}
	return s
}

// Kernel returns the path of the kernel and the directory of its modules. The
// installed files must have the size and the time of change that they had when
// their hashes were taken; one that has not is read and hashed again. The error
// is ErrNoKernel where running 'sandrun kernel install' is the way out.
func (s Store) Kernel() (kernel, modules string, err error) {
	if s.Override != "" {
		if err := checkOverride(s.Override); err != nil {
			return "", "", err
		}
		return s.Override, filepath.Dir(s.Override), nil
	}
	if err := s.usable(); err != nil {
		return "", "", err
	}
	m, err := s.check((*File).unchanged)
	if err != nil {
		return "", "", err
	}
	modules = filepath.Join(s.Dir, m.Directory)
	return filepath.Join(modules, kernelFile), modules, nil
}

// A Status is what a store holds.
type Status struct {
	Kernel   string    `json:"kernel"`             // its path
	Override bool      `json:"override,omitempty"` // by SANDRUN_KERNEL; then there is no manifest
	Manifest *Manifest `json:"manifest,omitempty"` // of the installed kernel
}

// Status reads every file of the installed kernel and compares its hash. The
// error is ErrNoKernel where running 'sandrun kernel install' is the way out.
func (s Store) Status() (Status, error) {
	if s.Override != "" {
		return Status{Kernel: s.Override, Override: true}, checkOverride(s.Override)
	}
	if err := s.usable(); err != nil {
		return Status{}, err
	}
	m, err := s.check((*File).verify)
	if err != nil {
		return Status{}, err
	}
	return Status{Kernel: filepath.Join(s.Dir, m.Directory, kernelFile), Manifest: m}, nil
}

// check reads the manifest and has each file checked.
func (s Store) check(file func(*File, string) error) (*Manifest, error) {
	var last error
	// An install may take the old files away between the two reads: look twice.
	for range 2 {
		m, err := readManifest(s.Dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoKernel
		} else if err != nil {
			return nil, err
		}
		last = nil
		for i := range m.Files {
			last = errors.Join(last, file(&m.Files[i], filepath.Join(s.Dir, m.Directory)))
		}
		if last == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%w (the installed one is damaged: %w)", ErrNoKernel, last)
}

// Remove takes away everything in the store.
func (s Store) Remove(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, false, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove the guest kernel: %w", err)
	}
	defer unlock()
	// First what makes the rest a kernel, so that no half of one is ever seen.
	if err := os.Remove(filepath.Join(s.Dir, manifestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the guest kernel: %w", err)
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("remove the guest kernel: %w", err)
	}
	return nil
}

// checkOverride reports why path cannot be a kernel.
func checkOverride(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s=%s: the path must be absolute", KernelEnv, path)
	}
	switch info, err := os.Stat(path); {
	case err != nil:
		return fmt.Errorf("%s: %w", KernelEnv, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s=%s: not a file", KernelEnv, path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s=%s: not executable (chmod +x it)", KernelEnv, path)
	}
	return nil
}

// usable reports why there can be no installed kernel here.
func (s Store) usable() error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return ErrNotSupported
	}
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("no place for the guest kernel: %q is no absolute path (set XDG_CACHE_HOME or HOME)", s.Dir)
	}
	return nil
}
