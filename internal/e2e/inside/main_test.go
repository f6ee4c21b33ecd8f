// Package inside tests the built sandrun in a guest kernel, as root, where it
// makes its leaves itself.
package inside

import (
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
	guest.Init()
	if !guest.Inside() {
		if err := e2e.Build(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			os.Exit(1)
		}
	}
	kerneltest.Main(m)
}
