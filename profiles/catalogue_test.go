package profiles

import (
	"io/fs"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testHost has everything that the catalogue's machines have.
var testHost = Host{CPUs: 64, Memory: 256 * GiB, Swap: 64 * GiB}

func catalogue(t testing.TB) *Set {
	t.Helper()
	s, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func resolve(t testing.TB, name string, o Overrides) Machine {
	t.Helper()
	m, err := catalogue(t).Resolve(name, o, testHost)
	if err != nil {
		t.Fatalf("resolve %s with %+v: %v", name, o, err)
	}
	return m
}

// The first table that motivated sandrun: how many workers a T3 instance takes.
func TestTableOfT3(t *testing.T) {
	for _, tt := range []struct {
		size, recommended string
		workers           int // that a run without -n uses
	}{
		{"small", "1", 1},
		{"medium", "1 (2 for light suites)", 1},
		{"large", "2", 2},
		{"xlarge", "3–4", 3},
		{"2xlarge", "auto", 8},
	} {
		for _, family := range []string{"t3.", "t3a.", "t4g."} {
			name := family + tt.size
			m := resolve(t, name, Overrides{})
			if got := m.Profile.Workers.String(); got != tt.recommended {
				t.Errorf("%s recommends %q, want %q", name, got, tt.recommended)
			}
			if m.Workers != tt.workers {
				t.Errorf("%s runs %d workers, want %d", name, m.Workers, tt.workers)
			}
			// The rule of auto comes to the same table from the memory alone.
			auto := resolve(t, name, Overrides{Workers: "auto"})
			w := m.Profile.Workers
			if !w.Auto && (auto.Workers < w.Count || auto.Workers > max(w.Count, w.UpTo)) {
				t.Errorf("%s: auto finds %d workers, the table says %s", name, auto.Workers, w)
			}
			// What is said of light suites and of ranges can be run.
			for _, n := range []int{w.UpTo, w.Light} {
				if n > 0 {
					resolve(t, name, Overrides{Workers: strconv.Itoa(n)})
				}
			}
		}
	}
}

// The second table: what a workstation holds with 4, 6 and 8 workers.
func TestTableOfWorkstation(t *testing.T) {
	const gb = 1_000_000_000
	m := resolve(t, "workstation-16c", Overrides{})
	p := m.Profile
	if m.VCPUs != 16 || m.Memory != 31*GiB || m.Swap != 8*GiB || m.Workers != 6 || p.Worker.Memory != 3*gb || m.Worker.Pids != 1000 {
		t.Errorf("workstation-16c is %s with %d workers of %d bytes and %d tasks", m.Summary(), m.Workers, p.Worker.Memory, m.Worker.Pids)
	}
	want := []Headroom{{"operating system", 4 * GiB}, {"GPU services", 6 * GiB}, {"editor", 3 * GiB}}
	if !slices.Equal(p.Headroom, want) {
		t.Errorf("headroom is %v, want %v", p.Headroom, want)
	}
	table := []Expectation{{4, 12 * gb, 15 * gb}, {6, 15 * gb, 20 * gb}, {8, 20 * gb, 25 * gb}}
	if !slices.Equal(p.Expect, table) {
		t.Errorf("expected memory is %v, want %v", p.Expect, table)
	}
	for _, e := range table {
		if caps := int64(e.Workers) * p.Worker.Memory; caps < e.From || caps > e.To {
			t.Errorf("%d workers at their caps hold %d bytes, and %d to %d were seen", e.Workers, caps, e.From, e.To)
		}
	}
	// Four and six fit the caps beside the services; eight only with less each.
	for n, fits := range map[int]bool{4: true, 6: true, 8: false} {
		m := resolve(t, "workstation-16c", Overrides{Workers: strconv.Itoa(n)})
		if got := m.Worker.Memory == alignDown(p.Worker.Memory); got != fits {
			t.Errorf("-n %d gives a worker %s; want the profile's cap: %v", n, FormatSize(m.Worker.Memory), fits)
		}
	}
	if m := resolve(t, "workstation-16c-swap32", Overrides{}); m.Swap != 32*GiB || m.Workers != 6 || m.Budget != 18*GiB {
		t.Errorf("workstation-16c-swap32 is %s, %d workers", m.Summary(), m.Workers)
	}
}

// What the first screen of a run shows.
func TestT3Small(t *testing.T) {
	m := resolve(t, "t3.small", Overrides{})
	if got, want := m.Summary(), "t3.small · 2 vCPU · 1.9 GiB · swap 0"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if want := (Caps{Memory: 768 * MiB, Swap: 0, Pids: 256}); m.Worker != want {
		t.Errorf("a worker has %+v, want %+v", m.Worker, want)
	}
	if len(m.Notes) != 0 {
		t.Errorf("notes without a reason: %q", m.Notes)
	}
}

func TestCatalogueInvariants(t *testing.T) {
	s := catalogue(t)
	want := []string{
		"t3.nano", "t3.micro", "t3.small", "t3.medium", "t3.large", "t3.xlarge", "t3.2xlarge",
		"t3a.small", "t4g.small", "m7i.large", "m7i.xlarge", "m7i.2xlarge", "c7i.large", "c7i.xlarge", "c7i.2xlarge",
		"github-public", "github-private", "gitlab-small", "gitlab-medium", "gitlab-large",
		"circleci-medium", "circleci-large", "lambda-128", "lambda-10240", "cloudrun-1x512m", "cloudrun-8x32g",
		"workstation-16c", "workstation-16c-swap32", "host",
	}
	names := s.Names()
	for _, n := range want {
		if !slices.Contains(names, n) {
			t.Errorf("the catalogue has no %s", n)
		}
	}
	for _, name := range names {
		p, err := s.Profile(name, testHost)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Title == "" || p.Basis.Note == "" || p.Source.Note == "" {
			t.Errorf("%s: no title, or no word on where its figures come from", name)
		}
		if name != hostName && p.Family != "workstation" {
			if u, err := url.Parse(p.Source.URL); err != nil || u.Scheme != "https" || u.Host == "" {
				t.Errorf("%s: its source %q is no address", name, p.Source.URL)
			}
			if d, err := time.Parse(time.DateOnly, p.Source.Date); err != nil || d.Year() < 2026 {
				t.Errorf("%s: its source was consulted on %q", name, p.Source.Date)
			}
			if p.Basis.Kind == "measured" && !strings.HasPrefix(p.Basis.URL, "https://") {
				t.Errorf("%s: a measurement without an address", name)
			}
		}
		m, err := p.Resolve(Overrides{}, testHost)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkMachine(t, m)
		if p.Memory > p.Nominal || m.Memory != p.Memory {
			t.Errorf("%s: sold %d, shown %d, machine %d", name, p.Nominal, p.Memory, m.Memory)
		}
		if m.Main < m.why.mainWish {
			t.Errorf("%s: main has %d, less than the %d kept for it", name, m.Main, m.why.mainWish)
		}
	}
}

// checkMachine checks what holds for every machine.
func checkMachine(t testing.TB, m Machine) {
	t.Helper()
	w := int64(m.Workers)
	switch {
	case m.Workers < 1 || m.Worker.Memory < align || m.Worker.Swap < 0 || m.Worker.Pids < 1:
		t.Errorf("%s: %d workers of %+v", m.Name, m.Workers, m.Worker)
	case w > m.Budget/m.Worker.Memory || w*m.Worker.Memory+m.Main != m.Budget || m.Main <= 0:
		t.Errorf("%s: %d × %d + %d is not the budget %d", m.Name, w, m.Worker.Memory, m.Main, m.Budget)
	case m.Budget > m.Memory:
		t.Errorf("%s: the budget %d is more than the memory %d", m.Name, m.Budget, m.Memory)
	case w > 0 && m.Worker.Swap > m.Swap/w:
		t.Errorf("%s: %d × %d of swap are more than %d", m.Name, w, m.Worker.Swap, m.Swap)
	case m.Worker.Pids > m.Pids/w || w*m.Worker.Pids >= m.Pids:
		t.Errorf("%s: %d × %d tasks leave none of %d", m.Name, w, m.Worker.Pids, m.Pids)
	case m.Pids > maxPids:
		t.Errorf("%s: %d tasks are more than the kernel takes", m.Name, m.Pids)
	}
	for _, n := range []int64{m.Budget, m.Swap, m.Worker.Memory, m.Worker.Swap} {
		if n%align != 0 {
			t.Errorf("%s: %d is not whole pages everywhere", m.Name, n)
		}
	}
	if q, p := m.CPUMax(); q < 1000 || p != 100_000 {
		t.Errorf("%s: cpu.max %d %d is not taken by the kernel", m.Name, q, p)
	}
}

func TestLambdaCPUs(t *testing.T) {
	for _, n := range catalogue(t).Names() {
		mb, ok := strings.CutPrefix(n, "lambda-")
		if !ok {
			continue
		}
		size, err := strconv.Atoi(mb)
		if err != nil {
			t.Fatal(err)
		}
		m := resolve(t, n, Overrides{})
		if want := float64(size) / 1769; math.Abs(m.VCPUs-want) > 0.0001 {
			t.Errorf("%s has %g vCPUs, want %g", n, m.VCPUs, want)
		}
		if m.Profile.Nominal != int64(size)*MiB || m.Memory != m.Profile.Nominal {
			t.Errorf("%s has %d bytes of %d", n, m.Memory, m.Profile.Nominal)
		}
	}
}

// The rule for what is not measured is close to what is.
func TestDerivedMemory(t *testing.T) {
	n := 0
	for _, name := range catalogue(t).Names() {
		p, err := catalogue(t).Profile(name, testHost)
		if err != nil {
			t.Fatal(err)
		}
		if p.Basis.Kind != "measured" || !strings.HasPrefix(name, "t3") {
			continue
		}
		n++
		if off := float64(DerivedMemory(p.Nominal)-p.Memory) / float64(p.Memory); math.Abs(off) > 0.021 {
			t.Errorf("%s: the rule is %.1f %% off", name, off*100)
		}
	}
	if n < 14 {
		t.Errorf("only %d measured machines were compared", n)
	}
	for _, n := range []int64{1, MiB, 64 * MiB, math.MaxInt64} {
		if d := DerivedMemory(n); d < 0 || d > n {
			t.Errorf("DerivedMemory(%d) = %d", n, d)
		}
	}
}

// Every file is in the list that gives the order, and belongs to the family it is named after.
func TestCatalogueFiles(t *testing.T) {
	files, err := fs.Glob(catalogueFiles, "catalogue/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(families) {
		t.Errorf("%d files, %d families", len(files), len(families))
	}
	for _, f := range families {
		data, err := fs.ReadFile(catalogueFiles, "catalogue/"+f+".yaml")
		if err != nil {
			t.Error(err)
			continue
		}
		doc, err := parseFile(f, data, false)
		if err != nil {
			t.Error(err)
		} else if doc.family != f {
			t.Errorf("catalogue/%s.yaml is of the family %q", f, doc.family)
		}
	}
}
