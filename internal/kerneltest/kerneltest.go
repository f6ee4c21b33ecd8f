// Package kerneltest runs the tests of a package inside a guest kernel.
package kerneltest

import (
	"os"
	"testing"

	"github.com/sandrun/sandrun/guest"
)

// Main is called from TestMain. Outside a guest it boots one with a throw-away
// root, runs this test binary in it as root with the same arguments, and exits
// with its status; inside, it runs the tests.
func Main(m *testing.M) {
	guest.Init()
	os.Exit(m.Run())
}
