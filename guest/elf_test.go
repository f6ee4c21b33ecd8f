package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A fakeSymbol is an undefined function of a fake program, with the version of libc it wants.
type fakeSymbol struct{ name, version string }

// fakeELF makes the smallest file that readDynamic takes for a program of that library.
func fakeELF(library string, symbols ...fakeSymbol) []byte {
	le := binary.LittleEndian
	names := []byte{0}
	str := func(s string) uint32 {
		at := len(names)
		names = append(append(names, s...), 0)
		return uint32(at)
	}

	var versions []string
	for _, s := range symbols {
		if !slices.Contains(versions, s.version) {
			versions = append(versions, s.version)
		}
	}
	dynsym, versym := make([]byte, elf.Sym64Size), make([]byte, versymLength)
	for _, s := range symbols {
		dynsym = append(le.AppendUint32(dynsym, str(s.name)), make([]byte, elf.Sym64Size-4)...)
		versym = le.AppendUint16(versym, uint16(2+slices.Index(versions, s.version)))
	}
	verneed := le.AppendUint16(nil, 1)
	verneed = le.AppendUint16(verneed, uint16(len(versions)))
	verneed = le.AppendUint32(verneed, str(library))
	verneed = le.AppendUint32(verneed, verneedSize)
	verneed = le.AppendUint32(verneed, 0)
	for i, v := range versions {
		verneed = le.AppendUint32(verneed, uint32(0x1000+i)) // stands for the hash
		verneed = le.AppendUint16(verneed, 0)
		verneed = le.AppendUint16(verneed, uint16(2+i))
		verneed = le.AppendUint32(verneed, str(v))
		next := uint32(vernauxSize)
		if i == len(versions)-1 {
			next = 0
		}
		verneed = le.AppendUint32(verneed, next)
	}

	sections := []struct {
		kind elf.SectionType
		link uint32
		data []byte
	}{{elf.SHT_NULL, 0, nil}, {elf.SHT_DYNSYM, 2, dynsym}, {elf.SHT_STRTAB, 0, names}, {elf.SHT_GNU_VERSYM, 1, versym}, {elf.SHT_GNU_VERNEED, 2, verneed}}
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Ehsize: 64, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 2,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)

	body, table := []byte{}, []byte{}
	for _, s := range sections {
		h := elf.Section64{Type: uint32(s.kind), Link: s.link, Off: uint64(64 + len(body)), Size: uint64(len(s.data))}
		table, _ = binary.Append(table, le, h)
		body = append(body, s.data...)
	}
	header.Shoff = uint64(64 + len(body))
	image, _ := binary.Append(nil, le, header)
	return slices.Concat(image, body, table)
}

// describe lists the symbols of a program as the dynamic linker reads them.
func describe(t *testing.T, image []byte) []string {
	t.Helper()
	d, err := readDynamic(image)
	if err != nil {
		t.Fatal(err)
	}
	needs, err := d.libcNeeds()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i := range d.symbolCount() {
		name, err := d.symbolName(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			if n.index == d.version(i) {
				list = append(list, fmt.Sprintf("%s@%s", name, n.name))
			}
		}
	}
	return list
}

func TestLowerLibc(t *testing.T) {
	plain := []fakeSymbol{{"puts", oldVersion}, {"stat", "GLIBC_2.33"}}
	for _, c := range []struct {
		name    string
		symbols []fakeSymbol
		edited  []string
		after   []string
	}{
		{"nothing to do", plain, nil, []string{"puts@GLIBC_2.2.5", "stat@GLIBC_2.33"}},
		{
			"numbers",
			append([]fakeSymbol{{"__isoc23_strtol", c23Version}, {"__isoc23_strtoull", c23Version}}, plain...),
			[]string{"strtol", "strtoull"},
			[]string{"strtol@GLIBC_2.2.5", "strtoull@GLIBC_2.2.5", "puts@GLIBC_2.2.5", "stat@GLIBC_2.33"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := fakeELF(libcName, c.symbols...)
			image := bytes.Clone(before)
			edited, err := lowerLibc(image)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.edited, edited); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.after, describe(t, image)); diff != "" {
				t.Error(diff)
			}
			d, err := readDynamic(image)
			if err != nil {
				t.Fatal(err)
			}
			needs, err := d.libcNeeds()
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range needs {
				if n.name == c23Version {
					t.Errorf("%s is still needed", n.name)
				}
			}
			if again, err := lowerLibc(image); len(again) > 0 || err != nil {
				t.Errorf("a second edit: %v, %v; want nothing to do", again, err)
			}
		})
	}
}

func TestLowerLibcRefuses(t *testing.T) {
	number := fakeSymbol{"__isoc23_strtol", c23Version}
	program := fakeELF(libcName, number, fakeSymbol{"puts", oldVersion})
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "not a dynamic"},
		{"a script", []byte("#!/bin/sh\nexit 0\n"), "not a dynamic"},
		{"cut short", program[:len(program)-64], "not a dynamic"},
		{"another library", fakeELF("libm.so.6", number), "no version of libc.so.6"},
		{"no old version", fakeELF(libcName, number), "not GLIBC_2.2.5"},
		{"unknown function", fakeELF(libcName, number, fakeSymbol{"strlcpy", c23Version}, fakeSymbol{"puts", oldVersion}), "strlcpy"},
		{"unknown C23 form", fakeELF(libcName, fakeSymbol{"__isoc23_scanf", c23Version}, fakeSymbol{"puts", oldVersion}), "__isoc23_scanf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := bytes.Clone(c.image)
			_, err := lowerLibc(image)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if !bytes.Equal(image, c.image) {
				t.Error("the file was changed all the same")
			}
		})
	}
}

// A program linked against a libc newer than this machine's runs after the edit.
func TestLowerLibcRuns(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	gcc := func(args ...string) {
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("gcc %v: %v\n%s", args, err, out)
		}
	}
	// The version is one that no libc has, so that the test holds on new machines too;
	// its length is that of the real one, so it can be put in its place below.
	const never = "GLIBC_9.99"
	write("libc.map", "GLIBC_2.2.5 { _exit; };\n"+never+" { __isoc23_strtol; };\n")
	libc := filepath.Join(dir, "libc.so.6")
	gcc("-shared", "-nostdlib", "-Wl,-soname,libc.so.6", "-Wl,--version-script="+filepath.Join(dir, "libc.map"), "-o", libc,
		write("libc.c", "void _exit(int n) { for (;;) ; }\nlong __isoc23_strtol(const char *s, char **e, int b) { return 0; }\n"))
	program := filepath.Join(dir, "program")
	gcc("-nostdlib", "-no-pie", "-fno-builtin", "-Wl,-z,now", "-mstackrealign", "-o", program,
		write("program.c", "void _exit(int); long __isoc23_strtol(const char *, char **, int);\nvoid _start(void) { _exit(__isoc23_strtol(\"42\", 0, 10)); }\n"), libc)

	image, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); err == nil {
		t.Fatal("the program ran before the edit: the test would prove nothing")
	}
	image = bytes.ReplaceAll(image, []byte(never), []byte(c23Version))
	edited, err := lowerLibc(image)
	if err != nil || len(edited) != 1 {
		t.Fatalf("lowerLibc: %v, %v", edited, err)
	}
	if err := os.WriteFile(program, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	var status *exec.ExitError
	if err := exec.Command(program).Run(); !errors.As(err, &status) || status.ExitCode() != 42 {
		t.Errorf("the edited program ended with %v, want exit status 42", err)
	}
}

func FuzzLowerLibc(f *testing.F) {
	f.Add(fakeELF(libcName, fakeSymbol{"__isoc23_strtol", c23Version}, fakeSymbol{"puts", oldVersion}))
	f.Add(fakeELF(libcName, fakeSymbol{"puts", oldVersion}))
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, before []byte) {
		image := bytes.Clone(before)
		edited, err := lowerLibc(image)
		if len(image) != len(before) {
			t.Fatalf("%d bytes became %d", len(before), len(image))
		}
		if err != nil || len(edited) == 0 && bytes.Equal(image, before) {
			if !bytes.Equal(image, before) {
				t.Fatal("changed in spite of an error")
			}
			return
		}
		// What changed lies in the three tables that the edit is about.
		table, err := readDynamic(before)
		if err != nil {
			t.Fatal(err)
		}
		for i := range before {
			if before[i] != image[i] && !within(before, table.dynsym, i) && !within(before, table.versym, i) && !within(before, table.verneed, i) {
				t.Fatalf("byte %d changed, outside the tables", i)
			}
		}
	})
}

// within reports whether index i of b lies in part, a slice of it.
func within(b, part []byte, i int) bool {
	for k := range part {
		if &b[i] == &part[k] {
			return true
		}
	}
	return false
}
