package sys

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// The status of a process that ends is the same whether its parent reaps it at
// once, late, or never.
func TestPidfdWait(t *testing.T) {
	for _, script := range []struct {
		text string
		want syscall.WaitStatus
	}{
		{"read x; exit 0", 0},
		{"read x; exit 7", 7 << 8},
		{"read x; kill -9 $$", syscall.WaitStatus(syscall.SIGKILL)},
	} {
		for _, reap := range []string{"at once", "late", "never"} {
			t.Run(script.text+", reaped "+reap, func(t *testing.T) {
				cmd := exec.Command("sh", "-c", script.text)
				stdin, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				p, err := OpenPidfd(cmd.Process.Pid)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}()
				reaped := make(chan struct{})
				go func() {
					defer close(reaped)
					switch reap {
					case "late":
						time.Sleep(50 * time.Millisecond)
					case "never":
						return
					}
					_ = cmd.Wait() // its status is not asked for here
				}()
				if reap != "late" {
					time.Sleep(5 * time.Millisecond)
				}
				if p.Ended() {
					t.Error("ended while it reads")
				}
				_ = stdin.Close()
				got, err := p.Wait(time.Second)
				if err != nil || got != script.want {
					t.Errorf("status %#x, %v; want %#x", got, err, script.want)
				}
				if !p.Ended() {
					t.Error("not ended after its status was had")
				}
				<-reaped
				if reap == "never" {
					_ = cmd.Wait()
				}
			})
		}
	}
}

func TestPidfdOfNobody(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if p, err := OpenPidfd(cmd.Process.Pid); err == nil {
		t.Error("a pidfd of a process that was reaped")
		_ = p.Close()
	}
}
