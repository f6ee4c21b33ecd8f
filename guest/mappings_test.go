package guest

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestExplain(t *testing.T) {
	f := Facts{MaxMapCount: 65530}
	if got := Explain("a line\n<3>"+mappingsMessage+"! This can happen\n", f); !strings.Contains(got, "vm.max_map_count=1048480") {
		t.Errorf("explanation %q", got)
	}
	if got := Explain("segfault at 0\n", f); got != "" {
		t.Errorf("explanation of nothing: %q", got)
	}
}

func TestCrowded(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	pid := strconv.Itoa(child.Process.Pid)
	eventually(t, 5*time.Second, "the mappings of "+pid+" are counted", func() bool { // once it is loaded
		maps, err := os.ReadFile("/proc/" + pid + "/maps")
		n, countErr := countMappings(pid)
		return err == nil && countErr == nil && n > 0 && n == bytes.Count(maps, []byte{'\n'})
	})
	if got := crowded(os.Getpid(), 1<<20); got != "" {
		t.Errorf("far from the limit: %q", got)
	}
	kernel := exec.Command("sh", "-c", "sleep 60 & read line; kill $!") // a child, which ends with it
	stdin, err := kernel.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := kernel.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close(); _ = kernel.Wait() }()
	eventually(t, 5*time.Second, "a child with a mapping is found", func() bool { return crowded(kernel.Process.Pid, 1) != "" })
}

func TestExplainFault(t *testing.T) {
	f := Facts{MaxMapCount: 65530}
	if got := ExplainFault(100<<20, f); got != "" {
		t.Errorf("100 MiB are fewer pages than mappings, and yet: %s", got)
	}
	got := ExplainFault(260<<20, f)
	for _, want := range []string{"260 MiB", "65530", "sysctl -w vm.max_map_count=1048480"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
