// Package bomb is a test that starts processes as fast as it can.
package bomb

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"example/internal/caps"
)

const (
	patience = 2 * time.Second // how long the test tries
	most     = 2000            // processes, whatever the caps are
)

// TestConvertAll starts a converter for each of very many files, all at once.
// Its children only sleep, die with it, and are never more than 2,000.
func TestConvertAll(t *testing.T) {
	caps.Pids(t)
	converter, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	spareThreads(8)

	// Pdeathsig is sent when the thread that forked ends, so stay on this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}

	var children []int
	var refused int
	for end := time.Now().Add(patience); time.Now().Before(end) && len(children) < most; {
		pid, err := syscall.ForkExec(converter, []string{"sleep", "30"}, attr)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			refused++ // and try again at once, as fork bombs do
		case err != nil:
			t.Errorf("child %d: %v", len(children), err)
			end = time.Now()
		default:
			children = append(children, pid)
		}
	}
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	if refused > 0 {
		t.Errorf("%d converters started, then the system refused %d times", len(children), refused)
	}
}

// spareThreads makes Go's runtime start n threads and keep them. A Go program
// that cannot start a thread when it needs one ends at once with a runtime
// error; this one should live to see its forks refused.
func spareThreads(n int) {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
}
