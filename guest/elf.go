package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A kernel built against glibc 2.38 calls __isoc23_strtol and its like where an
// older build called strtol: the C23 forms differ only in that they read binary
// "0b" numbers. Nothing else in Debian's kernel needs a libc newer than 2.34. The
// edit points those symbols at the old names and versions, in place, so that the
// kernel runs where it could not; every offset in the file stays as it was.
//
// Layouts: "Linux Standard Base Core", chapter "Symbol Versioning", and elf(5).
const (
	libcName   = "libc.so.6"
	c23Version = "GLIBC_2.38"
	c23Prefix  = "__isoc23_"
	oldVersion = "GLIBC_2.2.5" // the first of x86-64

	verneedSize  = 16 // Elf64_Verneed: vn_version, vn_cnt, vn_file, vn_aux, vn_next
	vernauxSize  = 16 // Elf64_Vernaux: vna_hash, vna_flags, vna_other, vna_name, vna_next
	versymMask   = 0x7fff
	versymLength = 2

	maxName = 1024 // bytes; longer ones are not a kernel's
)

// c23Functions have an old form that takes the same arguments.
var c23Functions = []string{"strtol", "strtoul", "strtoll", "strtoull"}

// errNotOurELF says that a file does not have the tables that the edit needs.
var errNotOurELF = errors.New("not a dynamic x86-64 program with versioned symbols")

// lowerLibc edits the program in image so that it no longer needs glibc 2.38, and
// returns the names of the functions it pointed at their old form: none if the
// program does not need that version. The length of image stays; after an error
// nothing in it has changed.
func lowerLibc(image []byte) ([]string, error) {
	t, err := readDynamic(image)
	if err != nil {
		return nil, err
	}
	needs, err := t.libcNeeds()
	if err != nil {
		return nil, err
	}
	old, c23 := -1, -1
	for i, n := range needs {
		switch n.name {
		case oldVersion:
			old = i
		case c23Version:
			c23 = i
		}
	}
	if c23 < 0 {
		return nil, nil
	}
	if old < 0 {
		return nil, fmt.Errorf("%w: it needs %s of %s but not %s", errNotOurELF, c23Version, libcName, oldVersion)
	}

	var symbols []int
	var names []string
	for i := range t.symbolCount() {
		if t.version(i) != needs[c23].index {
			continue
		}
		name, err := t.symbolName(i)
		if err != nil {
			return nil, err
		}
		plain, ok := strings.CutPrefix(name, c23Prefix)
		if !ok || !slices.Contains(c23Functions, plain) {
			return nil, fmt.Errorf("it needs %s of %s, which has no older form", name, c23Version)
		}
		symbols = append(symbols, i)
		names = append(names, plain)
	}

	for _, i := range symbols {
		t.dropPrefix(i, len(c23Prefix))
		t.setVersion(i, needs[old].index)
	}
	// The record of the new version becomes a second one of the old version.
	copy(t.verneed[needs[c23].at:][0:4], t.verneed[needs[old].at:][0:4])
	copy(t.verneed[needs[c23].at:][8:12], t.verneed[needs[old].at:][8:12])
	return names, nil
}

// dynamic is the part of a program that the dynamic linker reads: each field is
// a piece of the program's image, not a copy.
type dynamic struct {
	dynsym  []byte // Elf64_Sym records
	dynstr  []byte // their names, each ended by a zero byte
	versym  []byte // a version index for each symbol, of two bytes
	verneed []byte // the versions needed, a chain of Verneed and Vernaux records
}

func readDynamic(image []byte) (*dynamic, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOurELF, err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("%w: it is %v %v %v", errNotOurELF, f.Class, f.Data, f.Machine)
	}
	piece := func(s *elf.Section, what string) ([]byte, error) {
		size := uint64(len(image))
		if s == nil || s.Type == elf.SHT_NOBITS || s.Offset > size || s.FileSize > size-s.Offset {
			return nil, fmt.Errorf("%w: no %s in it", errNotOurELF, what)
		}
		end := s.Offset + s.FileSize
		return image[s.Offset:end:end], nil
	}
	symbols := f.SectionByType(elf.SHT_DYNSYM)
	var names *elf.Section
	if symbols != nil && uint64(symbols.Link) < uint64(len(f.Sections)) {
		names = f.Sections[symbols.Link]
	}
	var t dynamic
	for _, p := range []struct {
		to      *[]byte
		section *elf.Section
		what    string
	}{
		{&t.dynsym, symbols, "symbols"},
		{&t.dynstr, names, "symbol names"},
		{&t.versym, f.SectionByType(elf.SHT_GNU_VERSYM), "symbol versions"},
		{&t.verneed, f.SectionByType(elf.SHT_GNU_VERNEED), "needed versions"},
	} {
		if *p.to, err = piece(p.section, p.what); err != nil {
			return nil, err
		}
	}
	if len(t.versym)/versymLength < t.symbolCount() {
		return nil, fmt.Errorf("%w: %d symbols, %d versions", errNotOurELF, t.symbolCount(), len(t.versym)/versymLength)
	}
	return &t, nil
}

// A need is one version that the program wants of a library.
type need struct {
	at    int    // of its Vernaux in verneed
	index uint16 // by which symbols refer to it
	name  string
}

// libcNeeds returns the versions of libc that the program needs.
func (t *dynamic) libcNeeds() ([]need, error) {
	le := binary.LittleEndian
	at := uint64(0)
	// Each record takes room of its own, so a sound chain is never longer than this.
	for range len(t.verneed) / verneedSize {
		record, err := slot(t.verneed, at, verneedSize)
		if err != nil {
			return nil, err
		}
		count, file, aux, next := le.Uint16(record[2:]), le.Uint32(record[4:]), le.Uint32(record[8:]), le.Uint32(record[12:])
		library, err := t.name(file)
		if err != nil {
			return nil, err
		}
		if library == libcName {
			return t.auxiliary(at+uint64(aux), count)
		}
		if next == 0 {
			break
		}
		at += uint64(next)
	}
	return nil, fmt.Errorf("%w: it needs no version of %s", errNotOurELF, libcName)
}

func (t *dynamic) auxiliary(at uint64, count uint16) ([]need, error) {
	le := binary.LittleEndian
	if int(count) > len(t.verneed)/vernauxSize {
		return nil, fmt.Errorf("%w: %d needed versions in %d bytes", errNotOurELF, count, len(t.verneed))
	}
	var needs []need
	for range count {
		record, err := slot(t.verneed, at, vernauxSize)
		if err != nil {
			return nil, err
		}
		name, err := t.name(le.Uint32(record[8:]))
		if err != nil {
			return nil, err
		}
		needs = append(needs, need{at: int(at), index: le.Uint16(record[6:]) & versymMask, name: name})
		at += uint64(le.Uint32(record[12:]))
	}
	return needs, nil
}

// slot returns the size bytes of b at offset at.
func slot(b []byte, at, size uint64) ([]byte, error) {
	if n := uint64(len(b)); at > n || size > n-at {
		return nil, fmt.Errorf("%w: a record of %d bytes at %d of %d", errNotOurELF, size, at, n)
	}
	return b[at : at+size : at+size], nil
}

func (t *dynamic) name(at uint32) (string, error) {
	if uint64(at) < uint64(len(t.dynstr)) {
		rest := t.dynstr[at:]
		if name, _, ok := bytes.Cut(rest[:min(len(rest), maxName)], []byte{0}); ok {
			return string(name), nil
		}
	}
	return "", fmt.Errorf("%w: a name at %d of %d", errNotOurELF, at, len(t.dynstr))
}

func (t *dynamic) symbolCount() int { return len(t.dynsym) / elf.Sym64Size }

func (t *dynamic) symbolName(i int) (string, error) {
	return t.name(binary.LittleEndian.Uint32(t.dynsym[i*elf.Sym64Size:]))
}

// dropPrefix makes the name of symbol i start n bytes later in the string table.
func (t *dynamic) dropPrefix(i, n int) {
	field := t.dynsym[i*elf.Sym64Size:]
	binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)+uint32(n))
}

func (t *dynamic) version(i int) uint16 {
	return binary.LittleEndian.Uint16(t.versym[i*versymLength:]) & versymMask
}

func (t *dynamic) setVersion(i int, index uint16) {
	binary.LittleEndian.PutUint16(t.versym[i*versymLength:], index)
}
