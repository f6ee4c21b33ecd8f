package profiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadOwnProfiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, FileName)
	write(t, file, `
profiles:
  ci:
    extends: t3.large
    headroom: {database: 1GiB, CI agent: 5%}
    workers: 3-4
    worker:
      memory: 25%
      pids: 300
  bare:
    nominal: 8GiB
    vcpus: "4"
    swap: 2G
    worker: {swap: share}
  small-host:
    extends: host
    memory: 50%
  second:
    extends: ci
    title: "two deep"
    worker: {memory: share}
    workers: 2
`)
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Load(deep)
	if err != nil {
		t.Fatal(err)
	}
	if s.File != file {
		t.Errorf("found %q, want %q", s.File, file)
	}
	if got := strings.Join(s.Names()[:4], " "); got != "ci bare small-host second" {
		t.Errorf("own profiles are %q", got)
	}

	ci, err := s.Profile("ci", testHost)
	if err != nil {
		t.Fatal(err)
	}
	large, err := s.Profile("t3.large", testHost)
	if err != nil {
		t.Fatal(err)
	}
	if ci.Memory != large.Memory || ci.Source != large.Source || ci.VCPUs != 2 || ci.Extends != "t3.large" || ci.File != file || ci.Line != 3 {
		t.Errorf("ci is %+v", ci)
	}
	if len(ci.Headroom) != 2 || ci.Headroom[0] != (Headroom{"database", GiB}) || ci.Headroom[1].Bytes != large.Memory*5/100 {
		t.Errorf("headroom of ci is %v", ci.Headroom)
	}
	if ci.Worker.Memory != ci.Budget()/4 || ci.Worker.Pids != 300 || ci.Workers.String() != "3–4" {
		t.Errorf("workers of ci are %v of %+v", ci.Workers, ci.Worker)
	}

	m, err := s.Resolve("bare", Overrides{}, testHost)
	if err != nil {
		t.Fatal(err)
	}
	checkMachine(t, m)
	if m.Memory != DerivedMemory(8*GiB) || m.Workers != 3 || m.Worker.Swap != alignDown(2*GiB/3) {
		t.Errorf("bare is %s with %d workers of %+v", m.Summary(), m.Workers, m.Worker)
	}

	m, err = s.Resolve("small-host", Overrides{}, Host{CPUs: 2, Memory: 8 * GiB})
	if err != nil {
		t.Fatal(err)
	}
	if m.Memory != 4*GiB || m.VCPUs != 2 {
		t.Errorf("small-host is %s", m.Summary())
	}

	second, err := s.Profile("second", testHost)
	if err != nil {
		t.Fatal(err)
	}
	if second.Worker.Memory != 0 || second.Workers.String() != "2" || second.Worker.Pids != 300 || second.Title != "two deep" {
		t.Errorf("second is %+v", second)
	}
}

func TestLoadNearestFile(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, FileName), "profiles: {outer: {extends: t3.small}}")
	write(t, filepath.Join(inner, FileName), "profiles: {inner: {extends: t3.small}}")
	s, err := Load(inner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Profile("outer", testHost); err == nil {
		t.Error("the outer file was read too")
	}
	if _, err := s.Profile("inner", testHost); err != nil {
		t.Error(err)
	}
}

// A file that is there and cannot be read may hold the profile that is meant.
func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, FileName)) {
		t.Errorf("a directory called %s: %v", FileName, err)
	}
}

func TestLoadEmpty(t *testing.T) {
	for _, in := range []string{"", "\n", "# nothing\n", "---\n", "profiles: {}\n", "profiles:\n  x: {extends: host}\n"} {
		if _, err := parseSet("f.yaml", []byte(in)); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every mistake is told with its place, the key or value, and what would be right.
func TestLoadErrors(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"not YAML", "profiles: [", "f.yaml:1:11: not YAML: sequence end token ']' not found"},
		{"tabs", "profiles:\n\tci: 1", "f.yaml:2:1: not YAML: "},
		{"a list on top", "- a", "f.yaml:1:1: it holds a list; it must be a mapping of profiles"},
		{"a scalar on top", "hello", "f.yaml:1:1: it holds a plain value; it must be a mapping of profiles"},
		{"two documents", "profiles: {}\n---\nprofiles: {}", "f.yaml:3:9: a second document; a file of profiles is one"},
		{"unknown section", "profile:\n  ci: {}", `f.yaml:1:1: unknown key "profile"; did you mean "profiles"?`},
		{"a section of another kind", "suites: {}", `f.yaml:1:1: unknown key "suites"; "profiles" is the only one`},
		{"a list of profiles", "profiles:\n  - ci", "f.yaml:2:3: profiles: it holds a list; it must be a mapping, NAME: ..."},
		{"no profiles", "profiles:\n", "profiles: it holds nothing; it must be a mapping, NAME: ..."},
		{"an empty profile", "profiles:\n  ci:\n", "profiles.ci: it holds nothing; it must be a mapping of extends, title,"},
		{"unknown key", "profiles:\n  ci:\n    extends: t3.small\n    memroy: 2G", `f.yaml:4:5: profiles.ci: unknown key "memroy"; did you mean "memory"?`},
		{"unknown key far from all", "profiles:\n  ci: {zzz: 1}", `f.yaml:2:8: profiles.ci: unknown key "zzz"; there are extends, title, vcpus,`},
		{"unknown key of worker", "profiles:\n  ci:\n    worker:\n      pid: 3", `f.yaml:4:7: profiles.ci.worker: unknown key "pid"; did you mean "pids"?`},
		{"a duplicate key", "profiles:\n  ci:\n    memory: 1G\n    vcpus: 1\n    memory: 2G", "f.yaml:5:5: profiles.ci.memory: it is here a second time; the first is in line 3"},
		{"a duplicate profile", "profiles:\n  ci: {extends: host}\n  ci: {extends: host}", "f.yaml:3:3: profiles.ci: it is here a second time; the first is in line 2"},
		{"a name of the catalogue", "profiles:\n  t3.small:\n    extends: t3.large", "f.yaml:2:3: profiles.t3.small: t3.small is a profile of the catalogue; give this one another name"},
		{"the name host", "profiles:\n  host: {extends: t3.large}", "f.yaml:2:3: profiles.host: host is a profile of the catalogue"},
		{"a bad name", "profiles:\n  a b: {extends: t3.large}", `f.yaml:2:3: profiles.a b: "a b" is no name for a profile`},
		{"a name that is a path", "profiles:\n  ../x: {extends: t3.large}", "is no name for a profile"},
		{"an anchor", "profiles:\n  ci: &x {extends: host}", "f.yaml:2:7: profiles.ci: anchors and aliases are not read here; let one profile extend another"},
		{"a merge", "profiles:\n  ci:\n    <<: *x", "anchors and aliases are not read here"},
		{"a mapping for a value", "profiles:\n  ci:\n    memory: {a: 1}", "f.yaml:3:13: profiles.ci.memory: it holds a mapping; it must be one plain value"},
		{"a list for a value", "profiles:\n  ci:\n    memory: [1G]", "profiles.ci.memory: it holds a list; it must be one plain value"},
		{"nothing for a value", "profiles:\n  ci:\n    memory:\n    vcpus: 2", "profiles.ci.memory: it holds nothing; it must be one plain value"},
		{"a tag", "profiles:\n  ci:\n    memory: !!int 5", "profiles.ci.memory: it holds a tag; it must be one plain value"},
		{"a scalar for worker", "profiles:\n  ci:\n    worker: 2G", "f.yaml:3:13: profiles.ci.worker: it holds a plain value; it must be a mapping of memory, swap, pids"},
		{"no memory", "profiles:\n  ci: {vcpus: 2}", "f.yaml:2:3: profiles.ci: it has no memory; give memory"},
		{"no vcpus", "profiles:\n  ci: {memory: 2G}", "f.yaml:2:3: profiles.ci: it has no vcpus"},
		{"an empty size", own("memory", `""`), `f.yaml:4:13: profiles.ci.memory: "" is no size; write a size such as 512M`},
		{"a negative size", own("memory", "-1"), `f.yaml:4:13: profiles.ci.memory: "-1" is negative`},
		{"an overflow", own("memory", "99999999999G"), `profiles.ci.memory: "99999999999G" is more than 8 EiB`},
		{"an unknown unit", own("memory", "2Gx"), `profiles.ci.memory: "2Gx" has the unknown unit "Gx"`},
		{"a size in bytes by mistake", own("memory", "512"), `profiles.ci.memory: "512" is 512 bytes, less than the least, 1 MiB; did you leave out the unit?`},
		{"a size that YAML takes for a float", own("memory", "1e9"), `profiles.ci.memory: "1e9" has the unknown unit "e9"`},
		{"infinity", own("memory", ".inf"), `profiles.ci.memory: ".inf" is no size`},
		{"unlimited", own("memory", "max"), `profiles.ci.memory: "max" is no size: a run always has caps`},
		{"a percentage of nothing", "profiles:\n  ci:\n    vcpus: 1\n    memory: 50%", `f.yaml:4:13: profiles.ci.memory: "50%" has nothing to be a part of here`},
		{"a percentage above the whole", own("memory", "120%"), `profiles.ci.memory: "120%" is more than the whole`},
		{"more than is sold", own("memory", "4GiB\n    nominal: 2GiB"), "f.yaml:4:13: profiles.ci.memory: the memory shown, 4 GiB, is more than the nominal 2 GiB"},
		{"swap of no swap", own("swap", "50%"), `profiles.ci.swap: "50%" has nothing to be a part of here`},
		{"headroom above memory", own("headroom", "{os: 1.5GiB, editor: 1GiB}"), "f.yaml:4:5: profiles.ci.headroom: the headroom leaves less than 32 MiB of 1.9 GiB to the run"},
		{"headroom of an unknown unit", own("headroom", "{os: 1.5x}"), `f.yaml:4:20: profiles.ci.headroom.os: "1.5x" has the unknown unit "x"`},
		{"headroom without a name", own("headroom", `{"": 1G}`), "a part of the headroom must have a name"},
		{"vcpus of words", own("vcpus", "two"), `f.yaml:4:12: profiles.ci.vcpus: "two" is no number; give a number of CPUs`},
		{"vcpus of 0", own("vcpus", "0"), "profiles.ci.vcpus: 0 CPUs is out of range, 0.01 to 8192"},
		{"vcpus below 0", own("vcpus", "-1"), "profiles.ci.vcpus: -1 CPUs is out of range"},
		{"vcpus NaN", own("vcpus", ".nan"), `profiles.ci.vcpus: ".nan" is no number`},
		{"vcpus too many", own("vcpus", "9000"), "profiles.ci.vcpus: 9000 CPUs is out of range"},
		{"workers of 0", own("workers", "0"), "f.yaml:4:14: profiles.ci.workers: 0 is out of range; give a whole number from 1 to 9999, a range such as 3-4, or auto"},
		{"workers below 0", own("workers", "-3"), "profiles.ci.workers: -3 is out of range"},
		{"workers of a fraction", own("workers", "1.5"), `profiles.ci.workers: "1.5" is no whole number`},
		{"workers true", own("workers", "true"), `profiles.ci.workers: "true" is no whole number`},
		{"a range backwards", own("workers", "4-3"), "profiles.ci.workers: 3 is out of range; give a whole number from 5 to 9999 as the end of the range"},
		{"an open range", own("workers", "4-"), `profiles.ci.workers: "" is no whole number`},
		{"light workers", own("light_workers", "x"), `profiles.ci.light_workers: "x" is no whole number`},
		{"too many workers", own("workers", "500"), "profiles.ci.workers: 500 workers would have 1.7 MiB each, less than the least, 16 MiB"},
		{"pids of 0", own("pids", "0"), "profiles.ci.pids: 0 is out of range; give a whole number from 64 to 4194304"},
		{"pids above the kernel's", own("pids", "4194305"), "profiles.ci.pids: 4194305 is out of range"},
		{"pids out of int64", own("pids", "99999999999999999999"), "profiles.ci.pids: 99999999999999999999 is out of range"},
		{"main above half", own("main", "60%"), "profiles.ci.main: main's 996.7 MiB are more than half of the 1.6 GiB of the run"},
		{"a worker that does not fit", own("worker", "{memory: 1.5G}"), "f.yaml:4:22: profiles.ci.worker.memory: a worker of 1.5 GiB does not fit: the run has 1.6 GiB, and 830.5 MiB of them are main's"},
		{"workers that do not fit", own("worker", "{memory: 500M}\n    workers: 2"), "f.yaml:5:14: profiles.ci.workers: 2 workers of 500 MiB do not fit"},
		{"worker swap without swap", own("worker", "{swap: 1G}"), "profiles.ci.worker.swap: a worker's 1 GiB of swap are more than the machine's 0 B"},
		{"worker pids above the run's", own("worker", "{pids: 2290}"), "profiles.ci.worker.pids: a worker's 2290 tasks do not fit the machine's 2300"},
		{"expect is no list", own("expect", "3"), "profiles.ci.expect: it holds a plain value; it must be a list of"},
		{"expect without memory", own("expect", "[{workers: 2}]"), "profiles.ci.expect[0]: it must have both workers and memory"},
		{"expect of one size", own("expect", "[{workers: 2, memory: 2G}]"), `profiles.ci.expect[0].memory: "2G" is no range of sizes; write it as 12GB-15GB`},
		{"expect backwards", own("expect", "[{workers: 2, memory: 2G-1G}]"), `"2G-1G" ends before it begins`},
		{"basis of another kind", own("basis", "{kind: guess}"), `f.yaml:4:19: profiles.ci.basis.kind: the kind of a basis is measured, derived, limit or stated, not "guess"`},
		{"extends nobody", "profiles:\n  ci: {extends: t3.smal}", `f.yaml:2:17: profiles.ci.extends: there is no profile "t3.smal"; did you mean t3.small?`},
		{"extends nothing", "profiles:\n  ci: {extends: ''}", "profiles.ci.extends: the name of a profile is empty"},
		{"extends itself", "profiles:\n  ci: {extends: ci}", "f.yaml:2:17: profiles.ci.extends: it extends itself: ci → ci"},
		{"a cycle", "profiles:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}", "f.yaml:4:16: profiles.c.extends: it extends itself: a → b → c → a"},
		{"a title that is a terminal's command", own("title", `"a\e[2J"`), `f.yaml:4:12: profiles.ci.title: "a\x1b[2J" has a character that cannot be shown`},
		{"a part of the headroom that is one", own("headroom", `{"a\e[2J": 1GiB}`), `f.yaml:4:16: profiles.ci.headroom: the key "a\x1b[2J" has a character that cannot be shown`},
		{"a profile that is one", "profiles:\n  \"a\\e[2J\": {extends: host}", `f.yaml:2:3: profiles: the key "a\x1b[2J" has a character that cannot be shown`},
		{"no YAML, with one in it", "profiles: {\n  ? \x1b[2J", "f.yaml:"},
		{"a mistake in the second one", "profiles:\n  a: {extends: host}\n  b: {extends: a, memory: 0}", `f.yaml:3:27: profiles.b.memory: "0" is 0 bytes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseSet("f.yaml", []byte(tt.in))
			if err == nil {
				t.Fatalf("accepted:\n%s", tt.in)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s\nin:\n%s", err, tt.want, tt.in)
			}
			if strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("a terminal would take %q for a command", err)
			}
			var fe *FileError
			if !errors.As(err, &fe) || fe.File != "f.yaml" || fe.Line < 1 || fe.Column < 1 {
				t.Errorf("no place in %#v", err)
			}
		})
	}
}

// own is a file with one profile on t3.small that says one thing more, in line 4.
func own(key, value string) string {
	return "profiles:\n  ci:\n    extends: t3.small\n    " + key + ": " + value + "\n"
}

func TestLoadTooLarge(t *testing.T) {
	_, err := parseSet("f.yaml", []byte(strings.Repeat("#", maxFile+1)))
	if err == nil || !strings.Contains(err.Error(), "f.yaml: it has 65537 bytes; a file of profiles has at most 65536") {
		t.Errorf("got %v", err)
	}
}

// What would keep the parser busy for minutes is refused at once.
func TestLoadTooDeep(t *testing.T) {
	for _, unit := range []string{"[", "{a: ", "- ", "? ", "a: ", "!a ", "&a "} {
		in := strings.Repeat(unit, (maxFile-1)/len(unit))
		_, err := parseSet("f.yaml", []byte(in))
		if err == nil || !strings.Contains(err.Error(), "nested too deep") {
			t.Errorf("%q, many times: %.200v", unit, err)
		}
	}
}

func TestLoadDeepChain(t *testing.T) {
	var b strings.Builder
	b.WriteString("profiles:\n  p00: {extends: t3.large}\n")
	for i := 1; i < 40; i++ {
		b.WriteString("  p" + itoa(i) + ": {extends: p" + itoa(i-1) + "}\n")
	}
	_, err := parseSet("f.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "profiles extend one another; at most 16 may") {
		t.Errorf("got %v", err)
	}
}

func itoa(n int) string { return fmt.Sprintf("%02d", n) }

func TestUnknownProfile(t *testing.T) {
	s := catalogue(t)
	for name, want := range map[string]string{
		"t3.smal":       `there is no profile "t3.smal"; did you mean t3.small?`,
		"T3.Small":      "did you mean t3.small?",
		"githubpublic":  "did you mean github-public?",
		"workstation16": "did you mean workstation-16c?",
		"zzz":           `there is no profile "zzz"; 'sandrun profiles' lists them`,
		"":              "the name of a profile is empty",
	} {
		if _, err := s.Resolve(name, Overrides{}, testHost); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", name, err, want)
		}
	}
}

// FuzzLoad: no file panics; one that is accepted gives only machines that hold
// together; one that is not is refused with its name.
func FuzzLoad(f *testing.F) {
	f.Add("profiles:\n  ci:\n    extends: t3.large\n    headroom: {database: 1GiB}\n    workers: 3-4\n    worker: {memory: 1GiB, swap: 0, pids: 128}\n")
	f.Add("profiles:\n  a: {extends: host, memory: 50%, main: 10%}\n")
	f.Add("profiles:\n  a: {nominal: 8G, vcpus: 0.5, swap: 1G, worker: {swap: share}}\n")
	f.Add("profiles:\n  a: {memory: 32M, vcpus: 8192, pids: 64, workers: 1}\n")
	f.Add("profiles: &a [*a]\n")
	f.Add("- - - {[")
	f.Add("? : ?\n<<: !!x 'y\n")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := parseSet("f.yaml", []byte(in))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Errorf("%v: it does not name the file", err)
			}
			return
		}
		for _, n := range s.Names() {
			if s.specs[n] == nil || !s.specs[n].own {
				continue
			}
			if m, err := s.Resolve(n, Overrides{}, Host{CPUs: 2, Memory: 4 * GiB}); err == nil {
				checkMachine(t, m)
			}
		}
	})
}
