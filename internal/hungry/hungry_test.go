package hungry

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if Called() {
		os.Exit(Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestStatus runs each word with sizes that no machine notices.
func TestStatus(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		words  string
		status int // 128+n for signal n
		stdout string
	}{
		{"anon 4M", 0, ""},
		{"burst 4M", 0, ""},
		{"heap 4M", 0, ""},
		{"leak 1M 1ms 4M", 0, ""},
		{"thp 4M", 0, ""},
		{"mlock 256K", 0, ""},
		{"swap 4M 3", 0, ""},
		{"shared 4M", 0, ""},
		{"memfd 4M", 0, ""},
		{"tmpfs " + dir + " 4M", 0, ""},
		{"shm 4M", 0, ""},
		{"pipes 2M", 0, ""},
		{"sockets 2M", 0, ""},
		{"cache 4M /proc/self/exe", 0, ""},
		{"enomem 1G", ExitNoMem, ""},
		{"forks 5 100ms", 0, "5 forks, 0 refused\n"},
		{"threads 20", 0, ""},
		{"forktree 2 0", 0, ""},
		{"child exit 7", 7, ""},
		{"child die 15", 128 + 15, ""},
		{"times 3 exit 5", 5, ""},
		{"setsid say hello exit 9", 0, "hello\n"},
		{"say a both say b anon 1M , say c exit 3", 3, "a\nb\nc\n"},
		{"after 1ms hold 1ms anon 1M", 0, ""},
		{"sleep 1ms", 0, ""},
		{"exit 137", 137, ""},
		{"die 9", 128 + 9, ""},
		{"spew 100", 0, string(AppendLine(AppendLine(nil, 0), 1)[:100])},

		{"", ExitUsage, ""},
		{"nonsense", ExitUsage, ""},
		{"anon", ExitUsage, ""},
		{"anon 5T", ExitUsage, ""},
		{"anon -1", ExitUsage, ""},
		{"anon 99999999999G", ExitUsage, ""},
		{"exit 256", ExitUsage, ""},
		{"sleep", ExitUsage, ""},
		{"both exit 0", ExitUsage, ""},
	}
	for _, tt := range tests {
		t.Run(tt.words, func(t *testing.T) {
			t.Parallel()
			cmd := Command(t.Context(), strings.Fields(tt.words)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			got := shellStatus(t, cmd.Run())
			if got != tt.status || stdout.String() != tt.stdout {
				t.Errorf("status %d, stdout %q; want %d, %q\n%s", got, stdout.String(), tt.status, tt.stdout, stderr.String())
			}
		})
	}
}

func shellStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	ws := exit.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// A tmpfs hog that is killed leaves no file.
func TestTmpfsLeavesNoName(t *testing.T) {
	dir := t.TempDir()
	cmd := Command(t.Context(), "hold", "1m", "tmpfs", dir, "40M")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "three files without a name", func() bool {
		fds, _ := os.ReadDir("/proc/" + itoa(cmd.Process.Pid) + "/fd")
		n := 0
		for _, fd := range fds {
			if target, _ := os.Readlink("/proc/" + itoa(cmd.Process.Pid) + "/fd/" + fd.Name()); strings.HasPrefix(target, dir) && strings.HasSuffix(target, " (deleted)") {
				n++
			}
		}
		return n == 3
	})
	_ = cmd.Process.Kill()
	if got := shellStatus(t, cmd.Wait()); got != 128+9 {
		t.Errorf("status %d, want 137", got)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
}

// A deaf program outlives SIGTERM, not SIGKILL.
func TestDeaf(t *testing.T) {
	cmd := Command(t.Context(), "deaf", "say", "deaf", "sleep", "1m")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(20 * time.Millisecond)
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	_ = cmd.Process.Kill()
	if got := shellStatus(t, cmd.Wait()); got != 128+9 {
		t.Errorf("status %d, want 137", got)
	}
}

// setsid's grandchild has a session of its own and another parent than its maker.
func TestSetsidLeavesItsSession(t *testing.T) {
	cmd := Command(t.Context(), "setsid", "say", "here", "sleep", "1m")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	pid := findSleeper(t, cmd.Process.Pid)
	sid, err := getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	own, err := getsid(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if sid == own {
		t.Errorf("grandchild %d is in session %d, as this test", pid, sid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("setsid ended with %v when its grandchild was gone", err)
	}
}
