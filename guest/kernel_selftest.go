package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	selfTestTimeout = 30 * time.Second
	selfTestMemory  = 256 << 20 // bytes
	selfTestStatus  = 42
	selfTestOutput  = 4096 // bytes
)

// selfTestControllers are the cgroup v2 controllers without which a guest is of no use.
var selfTestControllers = []string{"cpu", "io", "memory", "pids"}

// selfTest boots the kernel over the host's root, for reading only, and has a
// command there print the cgroup controllers and end with a status of its own. It
// makes the directory run, and removes it.
func selfTest(ctx context.Context, kernel, init, run string) (SelfTest, error) {
	r, err := bootSelfTest(ctx, kernel, init, run)
	if err != nil {
		return r, fmt.Errorf("self-test: %w", err)
	}
	return r, nil
}

func bootSelfTest(ctx context.Context, kernel, init, run string) (r SelfTest, err error) {
	if err := os.Mkdir(run, 0o700); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	output, err := os.OpenFile(filepath.Join(run, "output"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return r, err
	}
	defer func() { _ = output.Close() }()

	m := Machine{
		Kernel: kernel, Modules: filepath.Dir(kernel), Init: init,
		Args:   []string{"/bin/sh", "-c", fmt.Sprintf("cat /sys/fs/cgroup/cgroup.controllers && exit %d", selfTestStatus)},
		Env:    []string{"PATH=/usr/bin:/bin"},
		Dir:    "/",
		Stdout: output, Stderr: output,
		Memory: selfTestMemory, Overlay: true,
		BootTimeout: selfTestTimeout, Timeout: selfTestTimeout,
		RunDir: run,
	}
	start := time.Now()
	if err := m.Start(ctx); err != nil {
		return r, err
	}
	err = m.Wait()
	r.Seconds = time.Since(start).Seconds()
	text, readErr := io.ReadAll(io.NewSectionReader(output, 0, selfTestOutput))
	if readErr != nil {
		return r, readErr
	}
	status := 0
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		status = exit.Code
	} else if err != nil {
		return r, err
	}
	if status != selfTestStatus {
		return r, fmt.Errorf("the command in the guest ended with status %d, want %d; it printed %q", status, selfTestStatus, text)
	}
	r.Controllers = strings.Fields(string(text))
	for _, c := range selfTestControllers {
		if !slices.Contains(r.Controllers, c) {
			return r, fmt.Errorf("the guest's cgroup controllers are %q, without %s", text, c)
		}
	}
	return r, nil
}
