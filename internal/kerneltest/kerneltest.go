// Package kerneltest runs the tests of a package inside a guest kernel, as root,
// over a throw-away layer of the host's file system: they may make cgroups, mounts
// and files anywhere, and the host sees nothing of it.
package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandrun/sandrun/guest"
)

// MustWorkEnv turns a skip for lack of a guest kernel into a failure when it is "1".
const MustWorkEnv = "SANDRUN_TEST_MUST_WORK"

const (
	memory = 2 << 30   // bytes; the throw-away layer is in it
	swap   = 512 << 20 // bytes; so that memory.swap.max has something to limit

	// exitDelay is what a test binary gets to tell of its own time-out before its
	// machine is ended.
	exitDelay = 30 * time.Second
)

// Main is called from TestMain. Outside a guest it boots one, runs this test
// binary in it with the same arguments and exits with its status; inside, it runs
// the tests and fails the package if they leave a process, a cgroup, a mount or a
// file descriptor behind.
//
// A result is never cached by the go command: it rests on a kernel of which the
// go command knows nothing.
func Main(m *testing.M) {
	guest.Init()
	if guest.Inside() {
		os.Exit(inside(m))
	}
	code, err := boot()
	switch {
	case err == nil:
	case errors.Is(err, guest.ErrNoKernel) || errors.Is(err, guest.ErrNotSupported):
		if os.Getenv(MustWorkEnv) == "1" {
			fmt.Fprintf(os.Stderr, "FAIL: these tests need a guest kernel, and %s is 1: %v\n", MustWorkEnv, err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, "SKIP: these tests need a guest kernel:", err)
	default:
		fmt.Fprintln(os.Stderr, "FAIL: the guest for these tests:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func inside(m *testing.M) int {
	facts, err := guest.ReadFacts()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	if !facts.Overlay {
		fmt.Fprintln(os.Stderr, "FAIL: these tests write anywhere and run as root: in a guest without an overlay they would change the host")
		return 1
	}
	before, err := takeStock()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: leak check:", err)
		return 1
	}
	code := m.Run()
	leaks, err := before.leaks()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: leak check:", err)
		return 1
	}
	if len(leaks) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left behind:\n\t%s\n", strings.Join(leaks, "\n\t"))
		return 1
	}
	return code
}

// boot runs this test binary in a guest and returns its exit status.
func boot() (code int, err error) {
	kernel, modules, err := guest.DefaultStore().Kernel()
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	runDir, err := os.MkdirTemp("", "sandrun-test-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(runDir)) }()
	args, dropped := testArgs(os.Args[1:])
	if len(dropped) > 0 {
		fmt.Fprintf(os.Stderr, "kerneltest: files do not come out of the guest; without %s\n", strings.Join(dropped, " "))
	}
	timeout, err := testTimeout(args)
	if err != nil {
		return 0, err
	}
	machine := &guest.Machine{
		Kernel: kernel, Modules: modules, Init: self,
		Args: append([]string{self}, args...), Env: os.Environ(), Dir: filepath.Clean(dir),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Memory: memory, Swap: swap, Overlay: true, Timeout: timeout, RunDir: runDir,
		// SIGQUIT is what the go command sends a test that takes too long.
		Forward: []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT},
		Warn:    func(message string) { fmt.Fprintln(os.Stderr, "kerneltest:", message) },
	}
	if err := machine.Start(context.Background()); err != nil {
		return 0, err
	}
	err = machine.Wait()
	var exit *guest.ExitError
	if errors.As(err, &exit) && exit.Reason == "" {
		return exit.Code, nil
	}
	return 0, err
}

// fileFlags name files or directories that the test binary writes. Inside they
// would be on the layer that is thrown away.
var fileFlags = []string{
	"testlogfile", "outputdir", "coverprofile", "gocoverdir",
	"cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace",
}

// silentFlags are those that the go command adds by itself.
var silentFlags = []string{"testlogfile", "outputdir", "gocoverdir"}

// testArgs returns the arguments for the test binary inside, and those among what
// was left out that somebody asked for.
func testArgs(args []string) (kept, dropped []string) {
	for i := 0; i < len(args); i++ {
		name, value := flagName(args[i])
		if !slices.Contains(fileFlags, name) {
			kept = append(kept, args[i])
			continue
		}
		if !slices.Contains(silentFlags, name) {
			dropped = append(dropped, args[i])
		}
		if !value {
			i++ // its value is the next argument
		}
	}
	return kept, dropped
}

// flagName returns x of "-test.x=v", "--test.x" and the like, and whether a value
// is attached.
func flagName(arg string) (name string, value bool) {
	arg = strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	name, ok := strings.CutPrefix(arg, "test.")
	if !ok {
		return "", false
	}
	name, _, value = strings.Cut(name, "=")
	return name, value
}

// testTimeout returns how long the machine may live: longer than its tests, 0
// for ever.
func testTimeout(args []string) (time.Duration, error) {
	for i, a := range args {
		name, attached := flagName(a)
		if name != "timeout" {
			continue
		}
		_, value, _ := strings.Cut(a, "=")
		if !attached && i+1 < len(args) {
			value = args[i+1]
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", a, err)
		}
		if d > 0 {
			d += exitDelay
		}
		return d, nil
	}
	return 0, nil
}
