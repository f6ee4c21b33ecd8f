package harness

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLinks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandrun", "links", "x")
	for range 2 { // the second finds the links of the first
		if err := Links(dir, "/usr/bin/sand run"); err != nil {
			t.Fatal(err)
		}
	}
	if err := Links(dir, "/opt/sandrun"); err != nil {
		t.Fatal(err)
	}
	for _, name := range Names {
		if got, err := os.Readlink(filepath.Join(dir, name)); err != nil || got != "/opt/sandrun" {
			t.Errorf("%s is a link to %q, %v", name, got, err)
		}
	}
	if names := readDir(t, dir); len(names) != len(Names) {
		t.Errorf("%s holds %q, want only the links", dir, names)
	}
}

func TestLinksRefuses(t *testing.T) {
	writable := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(writable, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	above := filepath.Join(t.TempDir(), "sandrun", "links", "x")
	if err := os.MkdirAll(above, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(above)), 0o770); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), elsewhere); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"writable by others":       writable,
		"writable by others above": above,
		"a link":                   elsewhere,
		"a file":                   file,
		"not absolute":             "relative",
		"a blank":                  filepath.Join(t.TempDir(), "a b"),
	} {
		if err := Links(dir, "/usr/bin/sandrun"); err == nil {
			t.Errorf("%s: Links(%q) does not refuse", name, dir)
		}
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			if names := readDir(t, dir); len(names) > 0 {
				t.Errorf("%s: refused, but %q were left", name, names)
			}
		}
	}
	if os.Getuid() == 0 {
		foreign := filepath.Join(t.TempDir(), "foreign")
		if err := os.Mkdir(foreign, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(foreign, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if err := Links(foreign, "/usr/bin/sandrun"); err == nil {
			t.Error("a directory of another user is not refused")
		}
	}
	if err := Links(t.TempDir()+"/sandrun", "sandrun"); err == nil {
		t.Error("a link to a relative path is not refused")
	}
}

func TestLinkDir(t *testing.T) {
	cache, runtime := t.TempDir(), t.TempDir()
	environ := []string{"HOME=/nowhere", "XDG_CACHE_HOME=" + cache, "XDG_RUNTIME_DIR=" + runtime}
	dir := func(environ []string, self, caps string) string {
		t.Helper()
		d, err := LinkDir(environ, self, caps)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := dir(environ, "/usr/bin/sandrun", "memory=1")
	if !strings.HasPrefix(first, cache) {
		t.Errorf("%s is not under XDG_CACHE_HOME", first)
	}
	if again := dir(environ, "/usr/bin/sandrun", "memory=1"); again != first {
		t.Errorf("the same run again is at %s, not %s: nothing would be cached", again, first)
	}
	if other := dir(environ, "/usr/bin/sandrun", "memory=2"); other == first {
		t.Error("other caps share the path: results would be cached across them")
	}
	if other := dir(environ, "/opt/bin/sandrun", "memory=1"); other == first {
		t.Error("another sandrun shares the path: they would run each other's binary")
	}

	blank := filepath.Join(t.TempDir(), "a b")
	if d := dir([]string{"HOME=" + blank, "XDG_RUNTIME_DIR=" + runtime}, "/usr/bin/sandrun", ""); !strings.HasPrefix(d, runtime) {
		t.Errorf("with a blank in HOME the links are at %s, want under XDG_RUNTIME_DIR", d)
	}
	home := t.TempDir()
	if d := dir([]string{"HOME=" + home}, "/usr/bin/sandrun", ""); !strings.HasPrefix(d, home+"/.cache/") {
		t.Errorf("%s is not under HOME/.cache", d)
	}
}

// TestLinksAtOnce runs it as many runs side by side would.
func TestLinksAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandrun")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				if err := Links(dir, "/usr/bin/sandrun"); err != nil {
					t.Error(err)
					return
				}
				if got, err := os.Readlink(filepath.Join(dir, KindGoExec)); err != nil || got != "/usr/bin/sandrun" {
					t.Errorf("a link to %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
	if names := readDir(t, dir); len(names) != len(Names) {
		t.Errorf("%q were left", names)
	}
}

func readDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
