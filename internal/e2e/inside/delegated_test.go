package inside

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandrun/sandrun/internal/e2e"
	"github.com/sandrun/sandrun/internal/sys"
)

const mount = "/sys/fs/cgroup"

// An unprivileged user who was given a cgroup, by an administrator or a container
// engine and without any systemd, has leaves made in it.
func TestInADelegatedCgroup(t *testing.T) {
	const user = 12345
	cg := delegate(t, user)
	dir, err := os.MkdirTemp("", "e2e-delegated-") // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	fd, err := sys.OpenDir(cg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sys.CloseFD(fd) }()

	sandrun := func(args ...string) (string, int) {
		cmd := exec.Command(copyOf(t, e2e.Sandrun(t), dir), args...)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + dir + ":" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			UseCgroupFD: true, CgroupFD: fd, Credential: &syscall.Credential{Uid: user, Gid: user},
		}
		out, _ := cmd.CombinedOutput() // the status says more than the error
		return string(out), e2e.Code(cmd.ProcessState)
	}

	run := func(args ...string) (string, int) {
		return sandrun(append([]string{"exec", "--profile", "t3.small"}, args...)...)
	}

	// tail holds what it reads until a line ends: /dev/zero has none.
	out, code := run("--memory", "300MiB", "--worker-memory", "64MiB", "--", "sh", "-c",
		`id -u; sandrun worker --label hog -- tail /dev/zero; sandrun worker --label ok -- cat /proc/self/cgroup; exit 0`)
	if code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	for _, want := range []string{
		"12345\n",
		"0::" + strings.TrimPrefix(cg, mount) + "/sandrun-",
		"its own memory.max 64 MiB",
		"2 workers: 1 passed, 1 killed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}

	// What is above the cgroup holds too, and a machine that is larger is refused.
	if err := os.WriteFile(filepath.Join(filepath.Dir(cg), "memory.max"), []byte("100M"), 0); err != nil {
		t.Fatal(err)
	}
	out, code = run("--memory", "300MiB", "--", "true")
	if code != 125 || !strings.Contains(out, "memory.max") || !strings.Contains(out, "104857600") {
		t.Errorf("exit status %d, want 125 and the outer limit named:\n%s", code, out)
	}

	// A dead tree of somebody else is no business of this user's gc.
	dead := mount + "/sandrun-0badcafe"
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := sandrun("gc"); code != 0 || !strings.Contains(out, "nothing to clear") {
		t.Errorf("gc beside another user's dead run: exit status %d\n%s", code, out)
	}
	if err := os.Remove(dead); err != nil {
		t.Error(err)
	}

	left, err := filepath.Glob(cg + "/sandrun-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// delegate makes a cgroup and hands it to a user, as
// Documentation/admin-guide/cgroup-v2.rst says under "Delegation".
func delegate(t *testing.T, user int) string {
	t.Helper()
	outer := filepath.Join(mount, "e2e-outer")
	cg := filepath.Join(outer, "mine")
	for _, step := range []func() error{
		func() error { return os.WriteFile(mount+"/cgroup.subtree_control", []byte("+cpu +memory +pids"), 0) },
		func() error { return os.Mkdir(outer, 0o755) },
		func() error { return os.WriteFile(outer+"/cgroup.subtree_control", []byte("+cpu +memory +pids"), 0) },
		func() error { return os.Mkdir(cg, 0o755) },
		func() error { return os.Chown(cg, user, user) },
		func() error { return os.Chown(cg+"/cgroup.procs", user, user) },
		func() error { return os.Chown(cg+"/cgroup.subtree_control", user, user) },
		func() error { return os.Chown(cg+"/cgroup.threads", user, user) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, dir := range []string{cg, outer} {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	return cg
}

// copyOf puts the binary where the user can reach it.
func copyOf(t *testing.T, binary, dir string) string {
	t.Helper()
	to := filepath.Join(dir, "sandrun")
	if _, err := os.Stat(to); err == nil {
		return to
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}
