package outside

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/e2e"
	"github.com/sandrun/sandrun/report"
)

// someUser is a user with no name, no rights and no home on this machine.
const someUser = 12345

// An unprivileged user runs go test on files it owns, in the guest: leaves with caps,
// the command under its own uid, and every new file its own.
func TestAsAnUnprivilegedUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("the other tests of this package are this test already: not root")
	}
	home := userHome(t)
	as := func(cmd *exec.Cmd) *exec.Cmd {
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someUser, Gid: someUser}}
		}
		cmd.Dir = filepath.Join(home, "demo")
		cmd.Env = []string{
			"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home,
			guest.KernelEnv + "=" + filepath.Join(home, "kernel", "linux.uml"),
		}
		return cmd
	}
	// The standard library is compiled here, where that is quick.
	warm := as(exec.Command("go", "test", "./cache", "./hog"))
	if out, err := warm.CombinedOutput(); err != nil {
		t.Fatalf("bare: %v\n%s", err, out)
	}

	record := filepath.Join(home, "run.json")
	cmd := as(exec.Command(filepath.Join(home, "sandrun"), "exec", "--kernel", "guest", "--profile", "t3.small", "--json", record,
		"--", "sh", "-c", "id -u; id -g; touch made; echo told >/dev/stderr; exec go test ./cache ./hog"))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if code := e2e.Code(cmd.ProcessState); code != 1 {
		t.Fatalf("exit status %d (%v), want go test's 1\n%s%s", code, err, &stdout, &stderr)
	}
	if want := "12345\n12345\n"; os.Geteuid() == 0 && !strings.HasPrefix(stdout.String(), want) {
		t.Errorf("output %q, want it to begin with uid and gid %q", &stdout, want)
	}
	for _, want := range []string{"told", "example/hog", "its own memory.max 768 MiB"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is missing on standard error:\n%s", want, &stderr)
		}
	}
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	var run report.Run
	if err := json.Unmarshal(b, &run); err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]report.Verdict{}
	for _, w := range run.Workers {
		verdicts[w.Label] = w.Verdict
	}
	if verdicts["example/cache"] != report.Passed || verdicts["example/hog"] != report.Memory {
		t.Errorf("verdicts %v, want cache passed and hog memory", verdicts)
	}
	owned(t, home)
}

// userHome makes a directory of someUser's with sandrun, the guest kernel and the
// demo's module in it.
func userHome(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "sandrun-user-") // t.TempDir is below a directory that only root may pass
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o700) // the module cache is read-only
			}
			return err
		})
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	root, err := e2e.Root()
	if err != nil {
		t.Fatal(err)
	}
	kernel, _, err := guest.DefaultStore().Kernel()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, e2e.Sandrun(t), filepath.Join(home, "sandrun"))
	if err := os.Mkdir(filepath.Join(home, "kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, kernel, filepath.Join(home, "kernel", "linux.uml"))
	if err := os.CopyFS(filepath.Join(home, "demo"), os.DirFS(filepath.Join(root, "testdata", "demo"))); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		err = filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(path, someUser, someUser)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// owned fails for every file below dir that is not the user's, and for a sandrun's
// directory that was left there.
func owned(t *testing.T, dir string) {
	t.Helper()
	uid := os.Geteuid()
	if uid == 0 {
		uid = someUser
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if got := int(info.Sys().(*syscall.Stat_t).Uid); got != uid {
			t.Errorf("%s belongs to user %d, want %d", path, got, uid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "sandrun-*", "[0-9a-f]*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
