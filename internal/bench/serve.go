package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Requests to a server: for the time of a worker with all that it causes, and as
// its caller sees it.
const (
	askAll  = "all"
	askSeen = "seen"
)

// A server is `bench serve` below a live `sandrun exec`: there, and only there,
// `sandrun worker` finds a supervisor. One supervisor serves all rounds, as it
// does all workers of a test suite.
type server struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *bytes.Buffer // sandrun's summary, told only if it failed
}

func startServer(ctx context.Context, sandrun string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, sandrun, "exec", "--kernel", "host",
		"--profile", "t3.small", "-n", "1", "--worker-memory", strconv.Itoa(limitMemory), "--worker-pids", strconv.Itoa(limitPids),
		"--", self, serveWord, sandrun)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &server{cmd, in, bufio.NewReader(out), &stderr}, nil
}

// ask sends a request and returns the time that the server measured.
func (s *server) ask(what string) (time.Duration, error) {
	// If the server has failed, close tells why.
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		return 0, err
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(line))
}

func (s *server) all() (time.Duration, error) { return s.ask(askAll) }

func (s *server) seen() (time.Duration, error) { return s.ask(askSeen) }

// close ends the run.
func (s *server) close() error {
	_ = s.in.Close() // Wait tells whether the server ended well
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%v: %w\n%s", s.cmd.Args, err, s.stderr)
	}
	return nil
}

// serve answers each line of standard input with a time on standard output.
func serve(_ context.Context, args []string) error {
	if len(args) != 1 || os.Getenv("SANDRUN_SOCK") == "" {
		return errors.New("bench " + serveWord + " is started by bench, below sandrun exec")
	}
	sandrun := args[0]
	machine, err := machineCgroup()
	if err != nil {
		return err
	}
	worker := func() (time.Duration, error) { return timed(nil, sandrun, "worker", "--", program) }
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var d time.Duration
		var err error
		switch in.Text() {
		case askSeen:
			for i := 0; i < burst && err == nil; i++ {
				var one time.Duration
				if one, err = worker(); err == nil {
					d += one / burst
					err = awaitRest(machine)
				}
			}
		case askAll:
			start := time.Now()
			for i := 0; i < burst && err == nil; i++ {
				_, err = worker()
			}
			if err == nil {
				err = awaitRest(machine)
			}
			d = time.Since(start) / burst
		default:
			err = fmt.Errorf("unknown request %q", in.Text())
		}
		if err != nil {
			return err
		}
		fmt.Println(d)
	}
	return in.Err()
}

// machineCgroup is the directory whose children are the workers' leaves: the
// parent of the leaf that this process is in.
func machineCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "0::")
	if !ok {
		return "", fmt.Errorf("/proc/self/cgroup: %q: want a cgroup v2 path", b)
	}
	return filepath.Dir(cgroupRoot + own), nil
}

// awaitRest returns once the supervisor has nothing left to do for the workers so
// far: their leaves are gone, and the leaf that waits for the next one is made.
func awaitRest(machine string) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		leaves, err := filepath.Glob(machine + "/worker-*")
		if err != nil {
			return err
		}
		if len(leaves) == 1 {
			// No process was ever in a leaf that waits (pids.peak, since Linux 6.1).
			peak, err := os.ReadFile(leaves[0] + "/pids.peak")
			if err == nil && strings.TrimSpace(string(peak)) == "0" {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the leaves of past workers stay: %q", leaves)
		}
	}
}
