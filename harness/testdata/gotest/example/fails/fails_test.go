package fails

import "testing"

func TestFails(t *testing.T) {
	t.Run("sub", func(t *testing.T) { t.Error("wrong") })
}
func TestAfter(t *testing.T) {}
