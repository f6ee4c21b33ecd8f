package hungry

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// waitFor polls until ok says so, for ten seconds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

// getsid is the session of a process, from /proc/PID/stat.
func getsid(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	after := b[bytes.LastIndexByte(b, ')')+1:] // state, ppid, pgrp, session
	return strconv.Atoi(string(bytes.Fields(after)[3]))
}

// findSleeper finds the process, not maker itself, whose words end in "say here sleep 1m".
func findSleeper(t *testing.T, maker int) (pid int) {
	t.Helper()
	waitFor(t, "grandchild", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil || !bytes.HasSuffix(b, []byte("\x00say\x00here\x00sleep\x001m\x00")) || bytes.Contains(b, []byte("setsid")) || bytes.Contains(b, []byte("orphan-stage")) {
				continue
			}
			pid, err = strconv.Atoi(strings.Split(file, "/")[2])
			return err == nil && pid != maker
		}
		return false
	})
	return pid
}
