package hog

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestBefore(t *testing.T) { t.Log("fine") }

func TestLoadModel(t *testing.T) {
	t.Run("small", func(t *testing.T) {})
	t.Run("large", func(t *testing.T) {
		fmt.Print("loading, without a newline")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	})
}

func TestNever(t *testing.T) {}
