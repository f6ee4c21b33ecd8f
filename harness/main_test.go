package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// placedFile names the file to which the stand-in for the shim adds what it placed, a
// JSON object a line.
const placedFile = "SANDRUN_TEST_PLACED"

// placed is one line of placedFile.
type placed struct {
	Request   Request
	Placement Placement
}

// TestMain makes the test binary stand in for the shim when cmd/go starts it by the
// link of that name: it asks the adapter and becomes the program.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == KindGoExec {
		fmt.Fprintln(os.Stderr, becomeWorker())
		os.Exit(125)
	}
	os.Exit(m.Run())
}

func becomeWorker() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	r := Request{Kind: KindGoExec, Argv: os.Args[1:], Dir: dir}
	_, p, ok := Default(1).Place(r)
	if !ok {
		return fmt.Errorf("no adapter for %q", r.Kind)
	}
	if file := os.Getenv(placedFile); file != "" {
		line, err := json.Marshal(placed{r, p})
		if err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.Write(append(line, '\n')); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return syscall.Exec(r.Argv[0], slices.Insert(r.Argv, 1, p.ExtraArgs...), os.Environ())
}
