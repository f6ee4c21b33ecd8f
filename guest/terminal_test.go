package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// A screen is a terminal and who sits at it.
type screen struct {
	t        *testing.T
	master   *os.File
	terminal *os.File

	mu    sync.Mutex
	shown bytes.Buffer
	seen  int // bytes that expect has passed
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, terminal, err := sys.OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, master: master, terminal: terminal}
	s.resize(33, 101)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = terminal.Close()
		_ = master.Close()
		<-done
	})
	return s
}

func (s *screen) resize(rows, cols uint16) {
	s.t.Helper()
	err := sys.Control(s.master, func(fd int) error { return sys.SetWinsize(fd, &sys.Winsize{Row: rows, Col: cols}) })
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) modes() sys.Termios {
	s.t.Helper()
	var modes sys.Termios
	err := sys.Control(s.terminal, func(fd int) error {
		m, err := sys.GetTermios(fd)
		if err == nil {
			modes = *m
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return modes
}

func (s *screen) typed(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until text is shown, behind what was expected before.
func (s *screen) expect(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		all := s.shown.String()
		s.mu.Unlock()
		if at := strings.Index(all[s.seen:], text); at >= 0 {
			s.seen += at + len(text)
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%q is not shown; the screen since the last time: %q", text, all[s.seen:])
		}
	}
}

// start runs a machine in a host process that leads a session on the terminal;
// streams that are not given are the terminal.
func (s *screen) start(m *Machine, stdin, stdout, stderr *os.File) *exec.Cmd {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = hostProgramEnv(s.t, m)
	files := []*os.File{stdin, stdout, stderr}
	tty := -1
	for i, f := range files {
		if f == nil {
			files[i], tty = s.terminal, i
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: tty}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// startShell starts a shell on the terminal, in which $HOST runs a machine: only a
// shell can have a stopped job.
func (s *screen) startShell(m *Machine) *exec.Cmd {
	s.t.Helper()
	shell := exec.Command("/bin/sh", "-i", "-m")
	shell.Env = append(hostProgramEnv(s.t, m), "PS1=$ ", "ENV=", "HOST="+m.Init)
	shell.Stdin, shell.Stdout, shell.Stderr = s.terminal, s.terminal, s.terminal
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		s.t.Fatal(err)
	}
	return shell
}

// wait waits for a process and returns its exit status.
func (s *screen) wait(cmd *exec.Cmd) int {
	s.t.Helper()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// rawSoon waits until a machine has the terminal.
func (s *screen) rawSoon() {
	s.t.Helper()
	eventually(s.t, 5*time.Second, "the terminal is raw", func() bool { return s.modes().Lflag&syscall.ICANON == 0 })
}

func TestTerminalInside(t *testing.T) {
	s := newScreen(t)
	before := s.modes()
	cmd := s.start(shell(t, `trap 'stty size' WINCH; tty; stty size; echo "$(test -t 0 && echo 0)$(test -t 1 && echo 1)$(test -t 2 && echo 2)"
read answer; echo "answer: $answer"; exit 5`), nil, nil, nil)
	s.expect("/dev/pts/0\r\n33 101\r\n02\r\n")
	if s.modes() == before {
		t.Error("the host's terminal is not raw while the guest has it")
	}
	s.typed("forty two\r")
	s.expect("forty two\r\n") // the guest's echo
	s.expect("answer: forty two\r\n")
	if code := s.wait(cmd); code != 5 {
		t.Errorf("exit status %d", code)
	}
	if s.modes() != before {
		t.Error("the terminal was not given back as it was")
	}
}

func TestTerminalIsFollowedInSize(t *testing.T) {
	s := newScreen(t)
	cmd := s.start(shell(t, `trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done`), nil, nil, nil)
	s.expect("ready")
	s.resize(44, 55)
	s.expect("44 55")
	if code := s.wait(cmd); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestTerminalKeys(t *testing.T) {
	t.Run("^C", func(t *testing.T) {
		s := newScreen(t)
		cmd := s.start(shell(t, "echo ready; exec sleep 60"), nil, nil, nil)
		s.expect("ready")
		s.typed("\x03")
		if code := s.wait(cmd); code != 130 {
			t.Errorf("exit status %d, want that of SIGINT", code)
		}
	})
	t.Run("^D", func(t *testing.T) {
		s := newScreen(t)
		cmd := s.start(newMachine(t, "/bin/cat"), nil, nil, nil)
		s.rawSoon()
		s.typed("hello\r\x04") // ahead of the command
		s.expect("hello\r\n")
		s.expect("hello\r\n")
		if code := s.wait(cmd); code != 0 {
			t.Errorf("exit status %d", code)
		}
	})
	t.Run("^Z", func(t *testing.T) {
		s := newScreen(t)
		m := shell(t, "echo ready; read line; echo got $line; exit 6")
		shell := s.startShell(m)
		s.expect("$ ")
		s.typed("$HOST\n")
		s.expect("ready")
		s.typed("\x1a")
		s.expect("$ ")
		s.typed("jobs\n")
		s.expect("Stopped")
		s.expect("$ ")
		s.typed("fg\n")
		s.expect("HOST}\r\n")
		s.rawSoon()
		s.typed("on\r")
		s.expect("got on")
		s.expect("$ ")
		s.typed("echo status $?\n")
		s.expect("status 6")
		s.typed("exit\n")
		_ = shell.Wait()
	})
}

// Before the command runs, ^C is for the host process.
func TestInterruptDuringBoot(t *testing.T) {
	s := newScreen(t)
	m := newMachine(t, "/bin/true")
	m.Init = filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(m.Init, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := s.modes()
	cmd := s.start(m, nil, nil, nil)
	s.rawSoon()
	s.typed("\x03")
	if code := s.wait(cmd); code != 130 {
		t.Errorf("exit status %d", code)
	}
	if s.modes() != before {
		t.Error("the terminal was not given back as it was")
	}
}

// Without a terminal inside, ^Z stops the whole machine with its host process.
func TestStopWithoutATerminal(t *testing.T) {
	s := newScreen(t)
	out := tempFile(t)
	shell := s.startShell(shell(t, "while :; do echo x; sleep 0.02; done"))
	size := func() int { return len(content(t, out)) }
	s.expect("$ ")
	s.typed("$HOST < /dev/null > " + out.Name() + " 2>&1\n")
	eventually(t, 10*time.Second, "the command writes", func() bool { return size() > 0 })
	s.typed("\x1a")
	s.expect("Stopped")
	s.expect("$ ")
	stopped := size()
	time.Sleep(300 * time.Millisecond)
	if size() != stopped {
		t.Errorf("the command goes on writing: %d bytes, then %d", stopped, size())
	}
	s.typed("fg\n")
	eventually(t, 5*time.Second, "the command goes on", func() bool { return size() > stopped })
	s.typed("\x03")
	s.expect("$ ")
	s.typed("echo status $?\n")
	s.expect("status 130")
	s.typed("exit\n")
	_ = shell.Wait()
}

// Job control of a shell inside works, too.
func TestShellInsideHasJobs(t *testing.T) {
	s := newScreen(t)
	m := newMachine(t, "/bin/sh", "-i", "-m")
	m.Env = append(m.Env, "PS1=$ ")
	cmd := s.start(m, nil, nil, nil)
	s.expect("$ ")
	s.typed("sleep 60\r")
	s.expect("sleep 60\r\n")
	time.Sleep(100 * time.Millisecond) // until it is the foreground job
	s.typed("\x1a")
	s.expect("$ ")
	s.typed("jobs\r")
	s.expect("Stopped")
	s.expect("$ ")
	s.typed("exit 3\r")
	s.expect("stopped jobs")
	s.typed("exit 3\r")
	if code := s.wait(cmd); code != 3 {
		t.Errorf("exit status %d", code)
	}
}

// A stream that is no terminal on the host is none inside.
func TestTerminalBesideAPipe(t *testing.T) {
	for name, c := range map[string]struct {
		stdin, stdout, stderr bool // to a file
		want                  string
	}{
		"stdout to a file": {stdout: true, want: "stdin=true stdout=false stderr=true"},
		"stderr to a file": {stderr: true, want: "stdin=true stdout=true stderr=false"},
		"both to a file":   {stdout: true, stderr: true, want: "stdin=true stdout=false stderr=false"},
		"stdin of a file":  {stdin: true, want: "stdin=false stdout=true stderr=true"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScreen(t)
			m := insideMachine(t, "tty")
			files := [3]*os.File{}
			for i, toFile := range []bool{c.stdin, c.stdout, c.stderr} {
				if toFile {
					files[i] = tempFile(t)
				}
			}
			cmd := s.start(m, files[0], files[1], files[2])
			if code := s.wait(cmd); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if c.stderr {
				if got := strings.TrimSpace(content(t, files[stderr])); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				return
			}
			s.expect(c.want)
		})
	}
}

// Half a megabyte typed at once is not too much, and lines of output end as they would on
// the host.
func TestTerminalCarriesMuch(t *testing.T) {
	s := newScreen(t)
	cmd := s.start(shell(t, "stty -echo; echo ready; echo lines $(wc -l)"), nil, nil, nil)
	s.expect("ready\r\n")
	const lines = 5000
	for range lines {
		s.typed(strings.Repeat("x", 99) + "\r")
	}
	s.typed("\x04")
	s.expect(fmt.Sprintf("lines %d\r\n", lines))
	if code := s.wait(cmd); code != 0 {
		t.Errorf("exit status %d", code)
	}
}
