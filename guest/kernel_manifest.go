package guest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	manifestFile   = "manifest.json"
	manifestSchema = 1
	manifestMax    = 1 << 20 // bytes
)

// A Manifest says what an installed kernel is, where it is from and how it was tried.
type Manifest struct {
	Schema    int       `json:"schema"`
	Package   string    `json:"package"`    // Debian's name
	Version   string    `json:"version"`    // of the package
	Suite     string    `json:"suite"`      // of the archive that it came from
	SHA256    string    `json:"sha256"`     // of the package file
	KnownGood bool      `json:"known_good"` // it is the very file that sandrun was developed with
	Release   string    `json:"release"`    // of the kernel
	Directory string    `json:"directory"`  // of the files, beside the manifest
	Files     []File    `json:"files"`
	Lowered   []string  `json:"lowered_libc,omitempty"` // C functions pointed at their form in an older libc
	SelfTest  SelfTest  `json:"self_test"`
	Installed time.Time `json:"installed"`
}

// A File is one file of an installed kernel.
type File struct {
	Name     string    `json:"name"`
	SHA256   string    `json:"sha256"`
	Size     int64     `json:"size"` // bytes
	Modified time.Time `json:"modified"`
}

// A SelfTest is the result of the boot that an install ends with.
type SelfTest struct {
	Controllers []string `json:"controllers"`  // of cgroup v2 in the guest
	Seconds     float64  `json:"wall_seconds"` // from start to power-off
}

// parseManifest accepts only a manifest whose files lie in one directory beside it.
func parseManifest(text []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	if m.Schema != manifestSchema {
		return nil, fmt.Errorf("schema %d, this sandrun knows %d", m.Schema, manifestSchema)
	}
	if !plainName(m.Directory) {
		return nil, fmt.Errorf("directory %q is no plain name", m.Directory)
	}
	kernel := false
	for _, f := range m.Files {
		if !plainName(f.Name) {
			return nil, fmt.Errorf("file %q is no plain name", f.Name)
		}
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != sha256.Size || f.Size < 0 {
			return nil, fmt.Errorf("file %s: no SHA-256 or size", f.Name)
		}
		kernel = kernel || f.Name == kernelFile
	}
	if !kernel {
		return nil, fmt.Errorf("no file %s", kernelFile)
	}
	return &m, nil
}

// plainName reports whether name is one element of a path, and not a way up.
func plainName(name string) bool {
	return filepath.IsLocal(name) && filepath.Base(name) == name && name != "."
}

// readManifest reads the manifest in dir. The error is fs.ErrNotExist where there
// is none, and ErrNoKernel where it says nothing of use.
func readManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, manifestMax))
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s: %w)", ErrNoKernel, path, err)
	}
	return m, nil
}

// writeManifest puts m in place in dir, whole or not at all.
func writeManifest(dir, work string, m *Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(work, manifestFile)
	if err := writeFile(temporary, bytes.NewReader(append(text, '\n')), 0o644); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, manifestFile)); err != nil {
		return err
	}
	return syncDirectory(dir)
}

// describeFile hashes a file of dir.
func describeFile(dir, name string) (File, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return File{}, err
	}
	return File{Name: name, SHA256: hex.EncodeToString(hash.Sum(nil)), Size: info.Size(), Modified: info.ModTime()}, nil
}

// verify reads the file in dir and compares its hash.
func (f *File) verify(dir string) error {
	now, err := describeFile(dir, f.Name)
	if err != nil {
		return err
	}
	if now.SHA256 != f.SHA256 {
		return fmt.Errorf("%s has SHA-256 %s, was installed with %s", filepath.Join(dir, f.Name), now.SHA256, f.SHA256)
	}
	return nil
}

// unchanged trusts the size and the time of change, and reads the file only where
// they differ, as after a copy of the home directory.
func (f *File) unchanged(dir string) error {
	info, err := os.Stat(filepath.Join(dir, f.Name))
	if err == nil && info.Mode().IsRegular() && info.Size() == f.Size && info.ModTime().Equal(f.Modified) {
		return nil
	}
	return f.verify(dir)
}

// writeFile writes a new file and sees it to the disk.
func writeFile(path string, from io.Reader, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	return f.Sync()
}

// syncDirectory sees the names in a directory to the disk.
func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
