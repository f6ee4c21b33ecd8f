package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestGoEnv holds goEnv against the real `go env GOFLAGS`.
func TestGoEnv(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	odd := write("odd", "# GOFLAGS=-v\n=\n\nGOFLAGS=-x\nNOEQUALS\n goflags=-a\nGOFLAGS=-mod=mod '-ldflags=-s -w'\nGOPROXY=off")
	write("home/.config/go/env", "GOFLAGS=-mod=vendor\n")
	write("xdg/go/env", "GOFLAGS=-trimpath\n")
	write("empty/go/env", "GOFLAGS=\n")
	home := "HOME=" + filepath.Join(dir, "home")
	for _, test := range []struct {
		name string
		env  []string
	}{
		{"nothing", []string{"GOENV=off"}},
		{"environment", []string{"GOENV=off", "GOFLAGS=-v -race"}},
		{"environment over file", []string{home, "GOFLAGS=-v"}},
		{"empty environment, file", []string{home, "GOFLAGS="}},
		{"file under HOME", []string{home}},
		{"file under XDG_CONFIG_HOME", []string{home, "XDG_CONFIG_HOME=" + filepath.Join(dir, "xdg")}},
		{"empty in the file", []string{home, "XDG_CONFIG_HOME=" + filepath.Join(dir, "empty")}},
		{"XDG_CONFIG_HOME not absolute", []string{home, "XDG_CONFIG_HOME=xdg"}},
		{"GOENV names a file", []string{home, "GOENV=" + odd}},
		{"GOENV names no file", []string{home, "GOENV=" + filepath.Join(dir, "missing")}},
		{"GOENV off", []string{home, "GOENV=off"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOCACHE=" + filepath.Join(dir, "cache"), "GOTOOLCHAIN=local"}
			environ = append(environ, test.env...)
			cmd := exec.Command("go", "env", "GOFLAGS")
			cmd.Env = environ
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got, source := goEnv(environ, "GOFLAGS")
			if want := strings.TrimSuffix(string(out), "\n"); got != want {
				t.Errorf("goEnv = %q, go env says %q", got, want)
			}
			if (got != "") && source == "" {
				t.Error("a value without a source")
			}
		})
	}
}

// TestGoEnvOfGoRoot reads the file that distributions may put beside the toolchain.
func TestGoEnvOfGoRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"go.env": "# comment\nGOFLAGS=-buildvcs=false\n", "bin/go": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "go")
	if err := os.Symlink(filepath.Join(root, "bin", "go"), link); err != nil {
		t.Fatal(err)
	}
	for name, environ := range map[string][]string{
		"GOROOT":            {"GOENV=off", "GOROOT=" + root},
		"PATH":              {"GOENV=off", "PATH=/nowhere:" + filepath.Join(root, "bin")},
		"PATH, by a link":   {"GOENV=off", "PATH=" + filepath.Dir(link)},
		"an empty GOFLAGS=": {"GOENV=off", "GOFLAGS=", "GOROOT=" + root},
	} {
		if got, source := goEnv(environ, "GOFLAGS"); got != "-buildvcs=false" || source != filepath.Join(root, "go.env") {
			t.Errorf("%s: goEnv = %q of %q", name, got, source)
		}
	}
}

// TestGoEnvWithoutGo reads no go.env of the working directory.
func TestGoEnvWithoutGo(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("go.env", []byte("GOFLAGS=-x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/nowhere"} {
		if got, source := goEnv([]string{"GOENV=off", "PATH=" + path}, "GOFLAGS"); got != "" || source != "" {
			t.Errorf("PATH=%s: %q of %q", path, got, source)
		}
	}
}

func TestSplitFlags(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []string
		ok   bool
	}{
		{"", nil, true},
		{" \t\r\n ", nil, true},
		{"-a -b=c", []string{"-a", "-b=c"}, true},
		{`'-a b' "-c 'd'"`, []string{"-a b", "-c 'd'"}, true},
		{`-a='b c'`, []string{"-a='b", "c'"}, true}, // a quote inside a field is a letter
		{`'a'b`, []string{"a", "b"}, true},          // and what follows a closing one is the next
		{`"`, nil, false},
		{`-a 'b`, nil, false},
	} {
		got, err := splitFlags(test.in)
		if (err == nil) != test.ok || !gocmp.Equal(got, test.want) {
			t.Errorf("splitFlags(%q) = %q, %v, want %q", test.in, got, err, test.want)
		}
	}
}

func FuzzSplitFlags(f *testing.F) {
	for _, s := range []string{"", "-a -b", `'-a b' "c"`, `'`, "\x00\xff 'x'y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fields, err := splitFlags(s)
		if err != nil {
			return
		}
		// Appending, as Env does, adds exactly one field and changes none before.
		more, err := splitFlags(s + " -exec=/x")
		if err != nil || len(more) != len(fields)+1 || !gocmp.Equal(more[:len(fields)], append([]string{}, fields...)) || more[len(fields)] != "-exec=/x" {
			t.Errorf("%q: %q and then %q, %v", s, fields, more, err)
		}
	})
}
