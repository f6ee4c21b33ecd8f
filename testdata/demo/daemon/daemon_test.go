// Package daemon is a test whose memory is taken by a process that has left: a
// grandchild in a session of its own, whose parent is gone. A test runner that
// kills a process, or even a process group, does not reach it.
package daemon

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"example/internal/caps"
)

// TestMain lets this test binary be the daemon too. DAEMON is the stage, SIZE the bytes to take.
func TestMain(m *testing.M) {
	switch os.Getenv("DAEMON") {
	case "fork":
		// The middle one: in a session of its own, it starts the daemon and leaves.
		if err := again("serve", nil).Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "serve":
		if err := serve(os.Getenv("SIZE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// again is a command that runs this test binary as a stage of the daemon.
// Its standard output is how it says that it is ready.
func again(stage string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "DAEMON="+stage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	return cmd
}

// TestIndexServer starts an index server, which warms a cache that is a quarter larger than the cap.
func TestIndexServer(t *testing.T) {
	size := caps.Memory(t) / 4 * 5
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := again("fork", &syscall.SysProcAttr{Setsid: true})
	cmd.Env = append(cmd.Env, "SIZE="+strconv.FormatInt(size, 10))
	cmd.Stdout = w
	err = cmd.Run()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	// The daemon is nobody's child now. Wait for its "ready", or for its end.
	ready, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Fatalf("server said %q and took %d bytes: no cap stopped it", ready, size)
}

// serve is the daemon.
func serve(size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	cache, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(cache); i += os.Getpagesize() {
		cache[i] = 1
	}
	fmt.Println("ready")
	return nil
}
