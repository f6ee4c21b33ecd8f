// Package outside tests the built sandrun on this machine, with the guest kernel
// that it brings for itself.
package outside

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/e2e"
	"github.com/sandrun/sandrun/internal/hungry"
	"github.com/sandrun/sandrun/internal/kerneltest"
)

func TestMain(m *testing.M) {
	if hungry.Called() {
		os.Exit(hungry.Run(os.Args[1:]))
	}
	_, _, err := guest.DefaultStore().Kernel()
	switch {
	case err == nil:
	case os.Getenv(kerneltest.MustWorkEnv) != "1" && (errors.Is(err, guest.ErrNoKernel) || errors.Is(err, guest.ErrNotSupported)):
		fmt.Fprintln(os.Stderr, "SKIP: these tests need a guest kernel:", err)
		os.Exit(0)
	default:
		fmt.Fprintln(os.Stderr, "FAIL: these tests need a guest kernel:", err)
		os.Exit(1)
	}
	if err := e2e.Build(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
