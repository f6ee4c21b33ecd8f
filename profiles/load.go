package profiles

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// FileName is the file that holds a project's own profiles.
const FileName = "sandrun.yaml"

//go:embed catalogue/*.yaml
var catalogueFiles embed.FS

// maxExtends is how many profiles may stand between one and the one it comes from.
const maxExtends = 16

// families is the order of the catalogue: cloud machines, runners, functions, own.
var families = []string{"t3", "m7i", "c7i", "github", "gitlab", "circleci", "lambda", "cloudrun", "workstation"}

// A Set is the profiles that a user can name: the catalogue, "host", and the own ones.
type Set struct {
	// File is the sandrun.yaml that was found, "" for none.
	File string

	order []string // own ones first, then the catalogue, then host
	specs map[string]*spec
}

var loadCatalogue = sync.OnceValues(func() (*Set, error) {
	s := &Set{specs: map[string]*spec{}}
	for _, family := range families {
		file := "catalogue/" + family + ".yaml"
		data, err := fs.ReadFile(catalogueFiles, file)
		if err != nil {
			return nil, fmt.Errorf("read the catalogue: %w", err)
		}
		doc, err := parseFile(file, data, false)
		if err != nil {
			return nil, err
		}
		if err := s.add(doc); err != nil {
			return nil, err
		}
	}
	s.order = append(s.order, hostName)
	return s, nil
})

// Catalogue returns the built-in profiles.
func Catalogue() (*Set, error) { return loadCatalogue() }

func (s *Set) add(doc *document) error {
	for _, p := range doc.profiles {
		if s.specs[p.name] != nil || p.name == hostName {
			return p.at.errorf("%s is a profile of the catalogue; give this one another name, and let it extend that (extends: %s)", p.name, p.name)
		}
		if p.own && !validName(p.name) {
			return p.at.errorf("%q is no name for a profile: use letters, digits, and . _ - between them, at most 64", p.name)
		}
		s.specs[p.name] = p
		s.order = append(s.order, p.name)
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && i < len(s)-1 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// Load returns the catalogue and the profiles of the sandrun.yaml that is found in
// dir or the nearest directory above it, if there is one.
func Load(dir string) (*Set, error) {
	file, data, err := find(dir)
	if err != nil {
		return nil, err
	}
	if file == "" {
		return Catalogue()
	}
	return parseSet(file, data)
}

// find looks for sandrun.yaml upwards from dir.
func find(dir string) (file string, data []byte, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", nil, fmt.Errorf("look for %s: %w", FileName, err)
	}
	for {
		file := filepath.Join(dir, FileName)
		data, err := os.ReadFile(file)
		if err == nil {
			return file, data, nil
		}
		// What cannot be read is an error: it may hold the profile that is meant.
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("read the project's profiles: %w", err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", nil, nil
		}
		dir = up
	}
}

// parseSet adds the profiles of an own file to the catalogue. Every one of them is
// checked, whether it will be used or not.
func parseSet(file string, data []byte) (*Set, error) {
	c, err := Catalogue()
	if err != nil {
		return nil, err
	}
	doc, err := parseFile(file, data, true)
	if err != nil {
		return nil, err
	}
	s := &Set{File: file, specs: make(map[string]*spec, len(c.specs)+len(doc.profiles))}
	for n, p := range c.specs {
		s.specs[n] = p
	}
	if err := s.add(doc); err != nil {
		return nil, err
	}
	s.order = append(s.order, c.order...)
	// What extends host is checked on a machine that everything fits, and again on
	// this one when it is used.
	large := Host{CPUs: 64, Memory: 1 * TiB, Swap: 1 * TiB}
	for _, p := range doc.profiles {
		if _, err := s.Profile(p.name, large); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Names are the names of all profiles: own ones first, then the catalogue by family.
func (s *Set) Names() []string { return append([]string(nil), s.order...) }

// Profile returns the profile called name; h is needed for "host" and what extends it.
func (s *Set) Profile(name string, h Host) (*Profile, error) {
	return s.profile(name, h, nil, nil)
}

// profile follows extends; chain are the specs on the way, from is who extends.
func (s *Set) profile(name string, h Host, chain []string, from *value) (*Profile, error) {
	if name == hostName {
		return hostProfile(h)
	}
	spec := s.specs[name]
	if spec == nil {
		err := s.unknown(name)
		if from != nil {
			return nil, from.wrap(err)
		}
		return nil, err
	}
	for i, c := range chain {
		if c == name {
			return nil, from.errorf("it extends itself: %s", strings.Join(append(chain[i:], name), " → "))
		}
	}
	var base *Profile
	if spec.extends != nil {
		if len(chain) == maxExtends {
			return nil, spec.extends.errorf("%d profiles extend one another; at most %d may", len(chain)+1, maxExtends)
		}
		var err error
		if base, err = s.profile(spec.extends.text, h, append(chain, name), spec.extends); err != nil {
			return nil, err
		}
	}
	return spec.build(base)
}

// unknown says that there is no such profile, and which one may be meant.
func (s *Set) unknown(name string) error {
	if name == "" {
		return errors.New("the name of a profile is empty; 'sandrun profiles' lists them")
	}
	names := s.Names()
	sort.Strings(names)
	if n := nearest(name, names); n != "" {
		return fmt.Errorf("there is no profile %q; did you mean %s? 'sandrun profiles' lists them", name, n)
	}
	return fmt.Errorf("there is no profile %q; 'sandrun profiles' lists them", name)
}
