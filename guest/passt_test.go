package guest

import (
	"testing"
)

func TestPasstReady(t *testing.T) {
	p, err := startPasst()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}
