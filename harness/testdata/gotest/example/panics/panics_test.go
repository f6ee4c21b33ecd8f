package panics

import "testing"

func TestPanics(t *testing.T) {
	t.Run("deep", func(t *testing.T) { panic("boom") })
}
