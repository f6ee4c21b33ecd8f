package inside

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sandrun/sandrun/internal/e2e"
)

// The command's own status comes through, whatever it is.
func TestExitStatus(t *testing.T) {
	for _, code := range []int{0, 1, 7, 125, 137, 255} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			r := e2e.Exec(t, small, "sh", "-c", "exit "+strconv.Itoa(code))
			r.WantCode(t, code)
			if r.Record.CommandExit != code || r.Record.Exit != code {
				t.Errorf("record: command %d, sandrun %d", r.Record.CommandExit, r.Record.Exit)
			}
		})
	}
}

func TestExitBySignal(t *testing.T) {
	r := e2e.Exec(t, small, "sh", "-c", "kill -TERM $$")
	r.WantCode(t, 128+15)
}

// A command that keeps quiet about a worker killed by a cap does not hide it.
func TestKillIsNotHidden(t *testing.T) {
	r := e2e.Script(t, small, `w hog burst 200M; exit 0`)
	r.Want(t, "hog", "memory")
	r.WantCode(t, 1)
	if r.Record.CommandExit != 0 || r.Record.Exit != 1 {
		t.Errorf("record: command %d, sandrun %d", r.Record.CommandExit, r.Record.Exit)
	}
	// A worker that only fails is the command's own affair.
	r = e2e.Script(t, small, `w bad exit 3; exit 0`)
	r.Want(t, "bad", "failed")
	r.WantCode(t, 0)
}

func TestNoSuchCommand(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, tt := range []struct {
		argv string
		code int
		says string
	}{
		{"sandrun-no-such-command", 127, "sandrun-no-such-command: command not found"},
		{plain, 126, plain + ": not executable"},
		{filepath.Dir(plain), 126, filepath.Dir(plain) + ": not executable"},
		{script("no-header", "echo"), 126, "exec format error"},
		{script("no-interpreter", "#!/no/such/interpreter\n"), 127, "no such file"},
	} {
		r := e2e.Exec(t, small, tt.argv)
		r.WantCode(t, tt.code)
		if !strings.Contains(r.Stderr, tt.says) {
			t.Errorf("stderr: %s; want ...%s...", r.Stderr, tt.says)
		}
	}
	r := e2e.Script(t, small, `
		"$SANDRUN" worker --label absent -- sandrun-no-such-command
		echo $?
		"$SANDRUN" worker --label plain -- `+plain+`
		echo $?`)
	if r.Stdout != "127\n126\n" {
		t.Errorf("statuses %q, want 127 and 126", r.Stdout)
	}
	r.Want(t, "absent", "failed", "plain", "failed")
}

// Mistakes are sandrun's own failure, and nothing is run.
func TestCannotRun(t *testing.T) {
	for _, flags := range [][]string{
		{"--memory", "lots"},
		{"--memory", "0"},
		{"--profile", "t3.smal"},
		{"--profile", "t3.small", "--memory", "100M", "-n", "1", "--worker-memory", "200M"},
		{"--kernel", "moon"},
		{"--no-such-flag"},
	} {
		r := e2e.Exec(t, flags, "echo", "it ran")
		r.WantCode(t, 125)
		if r.Stdout != "" || !strings.HasPrefix(r.Stderr, "sandrun: ") {
			t.Errorf("%q: stdout %q, stderr %q", flags, r.Stdout, r.Stderr)
		}
	}
}

// More workers at once than sandrun may have files open for: each runs under its
// caps or is refused with the way out, and the run ends.
func TestOutOfDescriptors(t *testing.T) {
	p := e2e.New(t, small, "sh", "-c", `
		i=0; while [ $i -lt 60 ]; do i=$((i+1)); "$SANDRUN" worker -- sh -c 'sleep 0.05; echo ran' & done; wait`)
	p.Cmd.Args = append([]string{"sh", "-c", `ulimit -n 64; exec "$@"`, "sh", p.Cmd.Path}, p.Cmd.Args[1:]...)
	p.Cmd.Path = "/bin/sh"
	p.Start()
	r := p.Wait()
	ran, refused := strings.Count(r.Stdout, "ran\n"), strings.Count(r.Stderr, "ulimit -n")
	if ran == 0 || refused == 0 || ran+refused != 60 {
		t.Errorf("%d ran and %d were told of ulimit, want 60 together\n%s", ran, refused, r.Stderr)
	}
}
