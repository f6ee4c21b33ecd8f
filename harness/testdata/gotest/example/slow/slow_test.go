package slow

import (
	"testing"
	"time"
)

func TestSlow(t *testing.T) {
	t.Run("inner", func(t *testing.T) { time.Sleep(10 * time.Second) })
}
