package harness

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestGoTestPlace(t *testing.T) {
	const paniconexit0 = "-test.paniconexit0"
	log := []string{"-test.testlogfile=/tmp/b/testlog.txt"}
	for _, test := range []struct {
		name string
		argv []string
		want Placement
	}{
		{"a test binary", []string{"/tmp/b/a.test", paniconexit0, "-test.timeout=10m0s"}, Placement{Worker: true, Label: "a", ExtraArgs: log}},
		{"with arguments of the user", []string{"/tmp/b/a.test", paniconexit0, "-test.v=true", "-golden", "x"}, Placement{Worker: true, Label: "a", ExtraArgs: log}},
		{"with coverage", []string{"/tmp/b/a.test", paniconexit0, "-test.gocoverdir=/tmp/b/gocoverdir", "-test.coverprofile=/tmp/b/_cover_.out"}, Placement{Worker: true, Label: "a", ExtraArgs: log}},
		{"fuzzing", []string{"/tmp/b/a.test", paniconexit0, "-test.fuzzcachedir=/c", "-test.fuzz=FuzzA"}, Placement{Worker: true, Label: "a"}},
		{"-count", []string{"/tmp/b/a.test", paniconexit0, "-test.count=1"}, Placement{Worker: true, Label: "a"}},
		{"a benchmark", []string{"/tmp/b/a.test", paniconexit0, "-test.bench=."}, Placement{Worker: true, Label: "a"}},
		{"a log file already", []string{"/tmp/b/a.test", "-test.testlogfile=/x", paniconexit0}, Placement{Worker: true, Label: "a"}},
		{"go run", []string{"/tmp/b/exe/main", "-x"}, Placement{}},
		{"go run of a directory NAME.test", []string{"/tmp/b/exe/a.test", "-x"}, Placement{}},
		{"go run of it without arguments", []string{"/tmp/b/exe/a.test"}, Placement{}},
		{"nothing", nil, Placement{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := GoTest{}.Place(Request{Kind: KindGoExec, Argv: test.argv, Dir: "/src"})
			if diff := gocmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommandPlace(t *testing.T) {
	for _, test := range []struct {
		r    Request
		want string
	}{
		{Request{Argv: []string{"/usr/bin/pytest", "tests/test_a.py"}}, "pytest tests/test_a.py"},
		{Request{Label: "mine", Argv: []string{"/usr/bin/pytest", "tests/test_a.py"}}, "mine"},
		{Request{Argv: []string{"sh", "-c", strings.Repeat("é", 100)}}, "sh -c " + strings.Repeat("é", 41) + "…"},
		{Request{Argv: []string{"true"}}, "true"},
		{Request{}, "worker"},
	} {
		test.r.Kind = KindWorker
		name, p, ok := Default(1).Place(test.r)
		if !ok || name != "command" || !p.Worker || p.Label != test.want || p.ExtraArgs != nil {
			t.Errorf("Place(%q) = %q, %+v, %v, want label %q", test.r.Argv, name, p, ok, test.want)
		}
	}
	if _, p, ok := Default(1).Place(Request{Kind: "other", Argv: []string{"true"}}); ok || p.Worker {
		t.Errorf("a kind that no adapter knows is placed: %+v", p)
	}
}

func TestGoTestEnv(t *testing.T) {
	const exec = "-exec=/links/go-exec"
	for _, test := range []struct {
		name    string
		flags   string // GOFLAGS before
		workers int
		want    string
		notes   int
	}{
		{"unset", "", 3, exec + " -p=3", 0},
		{"merged", "-mod=mod -tags=a,b", 3, "-mod=mod -tags=a,b " + exec + " -p=3", 0},
		{"quotes are kept", `'-ldflags=-X main.v=1 2' "-gcflags=all=-N -l"`, 1, `'-ldflags=-X main.v=1 2' "-gcflags=all=-N -l" ` + exec + " -p=1", 0},
		{"own -p, small enough", "-p=2", 3, "-p=2 " + exec, 0},
		{"own -p, too large", "--p=9", 3, "--p=9 " + exec, 1},
		{"own -exec", "-exec=strace", 3, "-exec=strace", 1},
		{"own --exec in quotes", `'--exec=strace -f'`, 3, `'--exec=strace -f'`, 1},
		{"an empty -exec is none", "-exec=", 3, "-exec= " + exec + " -p=3", 0},
		{"in a run already", "-mod=mod -exec=/outer/go-exec -p=8", 3, "-mod=mod -exec=/outer/go-exec -p=8 " + exec + " -p=3", 0},
		{"names that only look alike", "-execx=1 -pkgdir=/p", 3, "-execx=1 -pkgdir=/p " + exec + " -p=3", 0},
		{"broken", "'-mod=mod", 3, "'-mod=mod", 1},
		{"no worker count", "", 0, exec, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := []string{"A=1", "GOENV=off", "GOROOT=/nowhere", "GOFLAGS=old", "GOFLAGS=" + test.flags, "B=2"}
			before := slices.Clone(environ)
			env, notes, err := GoTest{Workers: test.workers}.Env("/links", environ)
			if err != nil {
				t.Fatal(err)
			}
			if got := getenv(env, "GOFLAGS"); got != test.want {
				t.Errorf("GOFLAGS=%s, want %s", got, test.want)
			}
			if len(notes) != test.notes {
				t.Errorf("notes %q, want %d", notes, test.notes)
			}
			if !slices.Equal(environ, before) {
				t.Errorf("the caller's environment was changed: %q", environ)
			}
			if getenv(env, "A") != "1" || getenv(env, "B") != "2" {
				t.Errorf("variables went missing: %q", env)
			}
		})
	}
	for _, link := range []string{"/with blank", "/with'quote", "/with$var", "/with\nline"} {
		if _, _, err := (GoTest{}).Env(link, nil); err == nil {
			t.Errorf("Env(%q) accepts a directory that GOFLAGS cannot carry", link)
		}
	}
}

func TestGoTestEnvCross(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "go_js_wasm_exec"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("GOOS=js\nGOARCH=wasm\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		environ []string
		kept    bool
	}{
		{"another machine, with a runner", []string{"GOENV=off", "GOOS=js", "GOARCH=wasm", "PATH=/nowhere:" + bin}, true},
		{"the same by go env -w", []string{"GOENV=" + file, "PATH=" + bin}, true},
		{"another machine, without a runner", []string{"GOENV=off", "GOARCH=riscv64", "PATH=" + bin}, false},
		{"this machine, said", []string{"GOENV=off", "GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH, "PATH=" + bin}, false},
	} {
		env, notes, err := GoTest{Workers: 1}.Env("/links", test.environ)
		if err != nil {
			t.Fatal(err)
		}
		if kept := getenv(env, "GOFLAGS") == ""; kept != test.kept || kept != (len(notes) == 1) {
			t.Errorf("%s: GOFLAGS=%s, notes %q", test.name, getenv(env, "GOFLAGS"), notes)
		}
	}
}
