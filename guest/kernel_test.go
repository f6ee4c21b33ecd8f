package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// installEnv makes TestInstall a process that installs a kernel into the directory
// that it names, and is killed in the middle of that.
const installEnv = "SANDRUN_TEST_INSTALL"

// killedInstall starts an install in a process of its own and kills that a moment
// after it has printed a line that begins with after.
func killedInstall(t *testing.T, dir, after string, moment time.Duration) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestInstall$")
	cmd.Env = append(os.Environ(), installEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains("\n"+said.String(), "\n"+after) {
		n, err := out.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			_ = cmd.Wait()
			unlessOffline(t, errors.New(said.String()), strings.Contains(said.String(), ErrFetch.Error()))
		}
	}
	time.Sleep(moment)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
}

// unlessOffline fails the test, or skips it where there is no network and there need not be.
func unlessOffline(t *testing.T, err error, offline bool) {
	t.Helper()
	if offline && os.Getenv("SANDRUN_TEST_MUST_WORK") != "1" {
		t.Skip(err)
	}
	t.Fatal(err)
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A kernel is installed from the archive of this machine: after two installs that
// were killed, and by two that run at once.
func TestInstall(t *testing.T) {
	if dir := os.Getenv(installEnv); dir != "" {
		if err := (Store{Dir: dir}).Install(t.Context(), InstallOptions{Log: os.Stdout}); err != nil {
			t.Fatal(err)
		}
		return
	}
	s := Store{Dir: filepath.Join(t.TempDir(), "kernel")}
	if _, err := s.Status(); !errors.Is(err, ErrNoKernel) {
		t.Fatalf("status of an empty store: %v, want ErrNoKernel", err)
	}

	killedInstall(t, s.Dir, "fetching", 700*time.Millisecond)
	if len(entries(t, s.Dir)) == 0 {
		t.Error("the killed install left nothing: it was not at work yet")
	}
	if _, err := s.Status(); !errors.Is(err, ErrNoKernel) {
		t.Fatalf("status after a killed install: %v, want ErrNoKernel", err)
	}
	killedInstall(t, s.Dir, "self-test", 0)
	if _, err := s.Status(); err == nil {
		t.Log("the second install was done when it was killed")
		if err := s.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, ErrNoKernel) {
		t.Fatal(err)
	}

	var logs [2]bytes.Buffer
	var errs [2]error
	var wg sync.WaitGroup
	for i := range logs {
		wg.Go(func() { errs[i] = s.Install(t.Context(), InstallOptions{Log: &logs[i]}) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		unlessOffline(t, err, errors.Is(err, ErrFetch))
	}
	if n := strings.Count(logs[0].String()+logs[1].String(), "fetching"); n != 1 {
		t.Errorf("two installs at once fetched %d times, want once\n%s%s", n, &logs[0], &logs[1])
	}

	status, err := s.Status()
	if err != nil {
		t.Fatal(err)
	}
	m := status.Manifest
	if want := []string{m.Directory, manifestFile}; !slices.Equal(entries(t, s.Dir), want) {
		t.Errorf("the store holds %q, want %q", entries(t, s.Dir), want)
	}
	for _, name := range append([]string{kernelFile, "copyright"}, kernelModules...) {
		if !slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name }) {
			t.Errorf("no %s in the store", name)
		}
	}
	kernel, modules, err := s.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	if kernel != status.Kernel || modules != filepath.Dir(kernel) {
		t.Errorf("Kernel: %s, %s; Status: %s", kernel, modules, status.Kernel)
	}
	if out, err := exec.Command(kernel, "--version").Output(); err != nil || strings.TrimSpace(string(out)) != m.Release {
		t.Errorf("the kernel says %q (%v), the manifest %q", out, err, m.Release)
	}

	t.Run("damage", func(t *testing.T) { testDamage(t, s) })
	t.Run("bad source", func(t *testing.T) { testForceKeeps(t, s) })

	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Errorf("Remove of nothing: %v", err)
	}
}

// testForceKeeps: an install that fails leaves the installed kernel as it was.
func testForceKeeps(t *testing.T, s Store) {
	before := entries(t, s.Dir)
	err := s.Install(t.Context(), InstallOptions{Force: true, Mirror: "http://127.0.0.1:1/debian"})
	t.Log(err)
	if !errors.Is(err, ErrFetch) {
		t.Errorf("install from a closed port: %v, want ErrFetch", err)
	}
	if after := entries(t, s.Dir); !slices.Equal(before, after) {
		t.Errorf("the store held %q, now %q", before, after)
	}
	if _, err := s.Status(); err != nil {
		t.Error(err)
	}
}

// testDamage changes copies of a good store.
func testDamage(t *testing.T, good Store) {
	m, err := readManifest(good.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(dir, kernel string) error
		quick  bool // seen without reading the files
	}{
		{"another size", func(_, kernel string) error { return os.Truncate(kernel, 4096) }, true},
		{"a changed byte", func(_, kernel string) error { return flipByte(kernel, time.Now()) }, true},
		{"a changed byte, time put back", func(_, kernel string) error {
			info, err := os.Stat(kernel)
			if err != nil {
				return err
			}
			return flipByte(kernel, info.ModTime())
		}, false},
		{"a missing module", func(_, kernel string) error {
			return os.Remove(filepath.Join(filepath.Dir(kernel), "overlay.ko"))
		}, true},
		{"no manifest", func(dir, _ string) error { return os.Remove(filepath.Join(dir, manifestFile)) }, true},
		{"half a manifest", func(dir, _ string) error { return os.Truncate(filepath.Join(dir, manifestFile), 100) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Store{Dir: filepath.Join(t.TempDir(), "kernel")}
			if err := os.CopyFS(s.Dir, os.DirFS(good.Dir)); err != nil {
				t.Fatal(err)
			}
			kernel := filepath.Join(s.Dir, m.Directory, kernelFile)
			for _, f := range m.Files { // a copy has times of its own, which is no damage
				if err := os.Chtimes(filepath.Join(s.Dir, m.Directory, f.Name), time.Time{}, f.Modified); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := s.Kernel(); err != nil {
				t.Fatalf("before the damage: %v", err)
			}
			if err := c.damage(s.Dir, kernel); err != nil {
				t.Fatal(err)
			}
			_, err := s.Status()
			if !errors.Is(err, ErrNoKernel) || !strings.Contains(err.Error(), "sandrun kernel install") {
				t.Errorf("Status: %v, want ErrNoKernel with the way out", err)
			}
			if _, _, err := s.Kernel(); errors.Is(err, ErrNoKernel) != c.quick {
				t.Errorf("Kernel: %v, want seen: %v", err, c.quick)
			}
		})
	}
	t.Run("a copy is no damage", func(t *testing.T) {
		s := Store{Dir: filepath.Join(t.TempDir(), "kernel")}
		if err := os.CopyFS(s.Dir, os.DirFS(good.Dir)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Kernel(); err != nil {
			t.Error(err)
		}
	})
}

func flipByte(path string, modified time.Time) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 1<<20)
	if err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 1}, 1<<20)
	}
	return errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, modified))
}

func TestInstallRefuses(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	wrongKeys := "/usr/share/keyrings/debian-archive-removed-keys.gpg"
	for _, c := range []struct {
		name    string
		options InstallOptions
		path    string        // of programs; "" leaves it
		within  time.Duration // for which the caller waits
		want    []string
	}{
		{"no apt", InstallOptions{}, "/nonexistent", time.Minute, []string{"apt", KernelEnv}},
		{"no keyring", InstallOptions{Keyring: "/nonexistent/keys.gpg"}, "", time.Minute, []string{"/nonexistent/keys.gpg", "debian-archive-keyring", "--keyring"}},
		{"wrong keys", InstallOptions{Keyring: wrongKeys, Suites: []string{"testing"}}, "", time.Minute, []string{ErrFetch.Error()}},
		{"no archive there", InstallOptions{Mirror: "http://127.0.0.1:1/debian"}, "", time.Minute, []string{ErrFetch.Error(), "testing", "unstable"}},
		{"a mute archive", InstallOptions{Mirror: "http://" + mute.Addr().String() + "/debian"}, "", time.Second, []string{context.DeadlineExceeded.Error()}},
		{"no mirror's name", InstallOptions{Mirror: "http://a b/"}, "", time.Minute, []string{`"http://a b/"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.path != "" {
				t.Setenv("PATH", c.path)
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.within)
			defer cancel()
			s := Store{Dir: filepath.Join(t.TempDir(), "kernel")}
			start := time.Now()
			err := s.Install(ctx, c.options)
			if took := time.Since(start); took > c.within+5*time.Second {
				t.Errorf("it took %v", took)
			}
			if err == nil {
				t.Fatal("it was installed")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error without %q: %v", w, err)
				}
			}
			if left := entries(t, s.Dir); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestOverride(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ path, want string }{
		{write("good", 0o700), ""},
		{write("plain", 0o600), "not executable"},
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, "not a file"},
		{"linux.uml", "absolute"},
	} {
		t.Setenv(KernelEnv, c.path)
		kernel, modules, err := DefaultStore().Kernel()
		if c.want == "" {
			if err != nil || kernel != c.path || modules != dir {
				t.Errorf("%s: %s, %s, %v", c.path, kernel, modules, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), KernelEnv) {
			t.Errorf("%s: %v, want an error with %q and %s", c.path, err, c.want, KernelEnv)
		}
	}
}

func TestDefaultStoreWithoutHome(t *testing.T) {
	t.Setenv(KernelEnv, "")
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	if _, _, err := DefaultStore().Kernel(); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("%v, want an error that names HOME", err)
	}
}

func TestMirrors(t *testing.T) {
	fetched := "Docker|Docker CE|https://apt.example.com\nDebian|Debian|http://mirror.example.org/debian\n" +
		"Debian|Debian|http://mirror.example.org/debian\nDebian|Debian-Security|http://mirror.example.org/debian-security\nDebian|Debian|\n"
	if got, want := fetchedMirrors(fetched), []string{"http://mirror.example.org/debian"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	named := "'http://mirror.example.org/debian/dists/bookworm/InRelease' mirror_InRelease 0 \n" +
		"'http://mirror.example.org/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror_Packages 0 \n" +
		"'file:/srv/flat/./Packages' flat 0\nReading package lists...\n'https://apt.example.com/dists/stable/InRelease' x 0\n"
	if got, want := namedMirrors(named), []string{"http://mirror.example.org/debian", "https://apt.example.com"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// makePackage builds a package file of the version with files, by their path in it.
func makePackage(t *testing.T, version string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["DEBIAN/control"] = fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.com>\nDescription: made by a test\n", kernelPackage, version)
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(t.TempDir(), "made.deb")
	if out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

// A package that calls itself the known one is that one; another is marked as such.
func TestIdentify(t *testing.T) {
	var m Manifest
	err := m.identify(t.Context(), makePackage(t, knownGoodVersion, map[string]string{}))
	if err == nil || !strings.Contains(err.Error(), knownGoodSHA256) {
		t.Errorf("a package with the known version and other content: %v", err)
	}
	if err := m.identify(t.Context(), makePackage(t, "99.1um1", map[string]string{})); err != nil || m.Version != "99.1um1" || m.KnownGood {
		t.Errorf("a newer package: %v, %+v", err, m)
	}
}

// Only what a machine needs is taken out of a package, and by name alone.
func TestUnpack(t *testing.T) {
	deb := makePackage(t, "1", map[string]string{
		"usr/bin/linux.uml": "kernel",
		"usr/bin/other":     "no",
		"usr/lib/uml/modules/7/kernel/fs/o/overlay.ko":  "module",
		"usr/lib/uml/modules/7/kernel/fs/o/other.ko":    "no",
		"usr/share/doc/" + kernelPackage + "/copyright": "licence",
		"usr/share/doc/another/copyright":               "no",
		"usr/share/linux.uml":                           "no",
	})
	dir := t.TempDir()
	if err := unpack(t.Context(), deb, dir); err != nil {
		t.Fatal(err)
	}
	if got, want := entries(t, dir), []string{"copyright", kernelFile, "overlay.ko"}; !slices.Equal(got, want) {
		t.Errorf("unpacked %q, want %q", got, want)
	}
	if text, err := os.ReadFile(filepath.Join(dir, kernelFile)); err != nil || string(text) != "kernel" {
		t.Errorf("the kernel is %q (%v)", text, err)
	}

	for _, c := range []struct {
		name, deb, want string
	}{
		{"without a kernel", makePackage(t, "1", map[string]string{"usr/bin/other": "no"}), "holds no " + kernelFile},
		{"two of a name", makePackage(t, "1", map[string]string{"a/overlay.ko": "1", "b/overlay.ko": "2"}), "overlay.ko"},
		{"no package", filepath.Join(dir, kernelFile), "dpkg-deb"},
	} {
		if err := unpack(t.Context(), c.deb, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// A kernel that does not boot, or whose guest is not what it should be, fails the
// self-test with what it printed; nothing is left of it.
func TestSelfTest(t *testing.T) {
	good, _ := kernel(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, kernel, init, want string }{
		{"good", good, self, ""},
		{"no kernel", script("linux.uml", "echo 'Kernel panic: no luck'; exit 1"), self, "no luck"},
		{"no process 1", good, "/nonexistent/init", "self-test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := filepath.Join(t.TempDir(), "run")
			result, err := selfTest(t.Context(), c.kernel, c.init, run)
			if c.want == "" {
				if err != nil || len(result.Controllers) < len(selfTestControllers) || result.Seconds <= 0 {
					t.Errorf("%+v, %v", result, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
			if _, err := os.Stat(run); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its directory is still there: %v", err)
			}
		})
	}
}

func TestUnpackTarRefuses(t *testing.T) {
	if _, err := unpackTar(strings.NewReader("not a tar"), t.TempDir()); err == nil {
		t.Error("a file that is no archive was unpacked")
	}
}

// The lock is one holder's at a time, and a wait for it ends with the context.
func TestLock(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "kernel")}
	unlock, err := s.lock(t.Context(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var log bytes.Buffer
	if _, err := s.lock(ctx, true, &log); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second holder: %v", err)
	}
	if !strings.Contains(log.String(), s.Dir) {
		t.Errorf("the wait was told as %q", &log)
	}
	// The directory may go away under a waiting one, which then makes it anew.
	second := make(chan error)
	go func() {
		unlock, err := s.lock(t.Context(), true, io.Discard)
		if err == nil {
			unlock()
		}
		second <- err
	}()
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); err != nil {
		t.Error(err)
	}
}

func FuzzManifest(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add([]byte(fmt.Sprintf(`{"schema":1,"directory":"kernel-1","files":[{"name":"linux.uml","sha256":%q,"size":1}]}`, sum)))
	f.Add([]byte(fmt.Sprintf(`{"schema":1,"directory":"..","files":[{"name":"../linux.uml","sha256":%q,"size":1}]}`, sum)))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		names := []string{m.Directory}
		for _, file := range m.Files {
			names = append(names, file.Name)
		}
		const base = "/store"
		for _, n := range names {
			if filepath.Dir(filepath.Join(base, n)) != base {
				t.Errorf("%q leads out of its directory", n)
			}
		}
		if !slices.Contains(names[1:], kernelFile) {
			t.Error("a manifest without a kernel was taken")
		}
	})
}

// A tool that hangs is killed with all that it started.
func TestRunAptKillsGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := runApt(ctx, "", nil, "sh", "-c", "sleep 60 & echo $! >"+pidFile+"; wait")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("a child of the tool lives on")
		}
	}
}
