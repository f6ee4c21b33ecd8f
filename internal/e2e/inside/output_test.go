package inside

import (
	"strings"
	"testing"

	"github.com/sandrun/sandrun/internal/e2e"
)

// 100 MB through a worker's standard output, byte-exact.
func TestOutputIsExact(t *testing.T) {
	const size = 100_000_000
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`w writer spew 100000000`)
	check := &e2e.SpewChecker{}
	p.Cmd.Stdout = check
	p.Start()
	r := p.Wait()
	r.Want(t, "writer", "passed")
	if err := check.Done(size); err != nil {
		t.Error(err)
	}
}

// The last line before a SIGKILL is not lost.
func TestLastWords(t *testing.T) {
	r := e2e.Script(t, small, `
		w hog say last-words burst 200M
		w self say more-words die 9`)
	r.Want(t, "hog", "memory", "self", "signaled")
	if r.Stdout != "last-words\nmore-words\n" {
		t.Errorf("stdout %q", r.Stdout)
	}
}

// Standard input, output and error are the command's own; sandrun adds to the last only.
func TestStreams(t *testing.T) {
	p := e2e.New(t, small, "sh", "-c", e2e.Prelude+`"$SANDRUN" worker -- cat; echo error >&2`)
	p.Cmd.Stdin = strings.NewReader("one\ntwo")
	p.Start()
	r := p.Wait()
	r.WantCode(t, 0)
	if r.Stdout != "one\ntwo" || !strings.HasPrefix(r.Stderr, "error\n") {
		t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
	}
}
