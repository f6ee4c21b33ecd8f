package kerneltest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/sys"
)

func TestMain(m *testing.M) { Main(m) }

func TestRunsAsRootInAThrowAwayGuest(t *testing.T) {
	f, err := guest.ReadFacts()
	if err != nil {
		t.Fatal(err)
	}
	if !f.Overlay || f.Swap == 0 || os.Getuid() != 0 {
		t.Errorf("facts %+v, uid %d", f, os.Getuid())
	}
}

func TestTestArgs(t *testing.T) {
	kept, dropped := testArgs([]string{
		"-test.v=true", "-test.testlogfile=/x/testlog.txt", "-test.timeout=10m0s",
		"--test.coverprofile", "/x/c.out", "-test.run", "^TestA$", "-own=1",
	})
	if want := []string{"-test.v=true", "-test.timeout=10m0s", "-test.run", "^TestA$", "-own=1"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
	if want := []string{"--test.coverprofile"}; !slices.Equal(dropped, want) {
		t.Errorf("dropped %q, want %q", dropped, want)
	}
}

func TestTestTimeout(t *testing.T) {
	for arg, want := range map[string]time.Duration{
		"-test.timeout=10m0s": 10*time.Minute + exitDelay,
		"-test.timeout=0":     0,
		"-test.v":             0,
	} {
		if d, err := testTimeout([]string{arg}); err != nil || d != want {
			t.Errorf("%s: %v, %v; want %v", arg, d, err, want)
		}
	}
	if _, err := testTimeout([]string{"-test.timeout=soon"}); err == nil {
		t.Error("-test.timeout=soon: no error")
	}
}

// The leak check must see each kind of thing, and only while it is there.
func TestLeaksAreSeen(t *testing.T) {
	before, err := takeStock()
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	const cgroup = "/sys/fs/cgroup/left-behind"
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := sys.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	left, err := before.leaks()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(left, "\n")
	for _, want := range []string{"(sleep, state", "cgroup " + cgroup, "mount tmpfs " + dir, ": /etc/passwd"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q among the leaks:\n%s", want, all)
		}
	}
	_ = file.Close()
	if err := sys.DetachMount(dir); err != nil {
		t.Error(err)
	}
	if err := os.Remove(cgroup); err != nil {
		t.Error(err)
	}
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	if left, err = before.leaks(); err != nil || len(left) > 0 {
		t.Errorf("after all was removed: %q, %v", left, err)
	}
}
