package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/hungry"
)

// The test binary is the sandrun of the scripts, and process 1 of the guests that
// they boot.
func TestMain(m *testing.M) {
	guest.Init()
	testscript.Main(m, map[string]func(){
		"sandrun": func() { os.Exit(run(context.Background(), os.Args)) },
		"hungry":  func() { os.Exit(hungry.Run(os.Args[1:])) },
	})
}

// TestScripts runs testdata/script/*.txtar: each begins with what a user would want
// to know. Those named guest-* boot the guest kernel.
func TestScripts(t *testing.T) {
	kernel, _, err := guest.DefaultStore().Kernel()
	haveKernel := err == nil
	if !haveKernel && (!errors.Is(err, guest.ErrNoKernel) || os.Getenv("SANDRUN_TEST_MUST_WORK") == "1") {
		t.Fatalf("the scripts need a guest kernel: %v", err)
	}
	caches := goCaches(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			if err := os.Mkdir(home, 0o755); err != nil {
				return err
			}
			env.Setenv("HOME", home)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
			if haveKernel {
				env.Setenv("SANDRUN_KERNEL", kernel)
			}
			for name, value := range caches {
				env.Setenv(name, value)
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "kernel" {
				return haveKernel, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": status,
		},
	})
}

// goCaches are the caches of the go command: the scripts have a home of their own,
// and need not compile the standard library for it.
func goCaches(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("go", "env", "-json", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var caches map[string]string
	if err := json.Unmarshal(out, &caches); err != nil {
		t.Fatal(err)
	}
	return caches
}

// status N CMD...: the command exits with status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}
