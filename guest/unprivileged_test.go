package guest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// copyFile copies a program to where another user can reach it.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dst.Close() }()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
}

// Any user can run a machine on the files they own: inside they are root, and
// outside the files are still theirs.
func TestAsAnUnprivilegedUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this test becomes another user; every other test here runs as the one that you are")
	}
	const uid, gid = 12345, 12346
	// Not below t.TempDir, whose parent is closed to others.
	dir, err := os.MkdirTemp("", "sandrun-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"work", "run"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	m := shell(t, `id -u; echo mine > made; touch ../not-mine 2>/dev/null && echo wrote to a directory of root; cd /sys/fs/cgroup && echo +memory > cgroup.subtree_control && mkdir test && echo 1000000 > test/memory.max && echo capped
exit 4`)
	copyFile(t, m.Init, filepath.Join(dir, "init"))
	copyFile(t, m.Kernel, filepath.Join(dir, "linux"))
	m.Init, m.Kernel = filepath.Join(dir, "init"), filepath.Join(dir, "linux")
	m.Overlay, m.Dir, m.RunDir = false, filepath.Join(dir, "work"), filepath.Join(dir, "run")

	var out, errs bytes.Buffer
	host := exec.Command(m.Init)
	host.Env = hostProgramEnv(t, m)
	host.Dir = m.Dir
	host.Stdin, host.Stdout, host.Stderr = strings.NewReader(""), &out, &errs
	host.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if err := host.Run(); host.ProcessState == nil || host.ProcessState.ExitCode() != 4 {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if got := out.String(); got != "0\ncapped\n" {
		t.Errorf("output %q", got)
	}
	st, err := os.Stat(filepath.Join(m.Dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := st.Sys().(*syscall.Stat_t); owner.Uid != uid || owner.Gid != gid {
		t.Errorf("the new file is of %d:%d, want %d:%d", owner.Uid, owner.Gid, uid, gid)
	}
	if left, err := os.ReadDir(m.RunDir); err != nil || len(left) > 0 {
		t.Errorf("left in the run directory: %v, %v", left, err)
	}
}
