package parallel

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestA(t *testing.T) { t.Parallel(); time.Sleep(10 * time.Second) }
func TestB(t *testing.T) { t.Parallel() }
func TestC(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		for _, name := range []string{"x", "y", "z"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if name != "y" {
					return
				}
				time.Sleep(200 * time.Millisecond)
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			})
		}
	})
}
