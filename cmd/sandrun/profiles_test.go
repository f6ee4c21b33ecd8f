package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/profiles"
)

// Each flag reaches the figure of the same name, and no other.
func TestReadOverrides(t *testing.T) {
	read := func(args ...string) (got profiles.Overrides, name string, err error) {
		c := &cli.Command{
			Name: "x", Flags: overrideFlags(), Writer: &strings.Builder{}, ErrWriter: &strings.Builder{},
			OnUsageError: usageError,
			Action: func(_ context.Context, c *cli.Command) error {
				got, name = readOverrides(c), c.String("profile")
				return nil
			},
		}
		err = c.Run(t.Context(), append([]string{"x"}, args...))
		return got, name, err
	}
	for flag, want := range map[string]profiles.Overrides{
		"--memory":        {Memory: "7"},
		"--swap":          {Swap: "7"},
		"--pids":          {Pids: "7"},
		"--cpus":          {CPUs: "7"},
		"-n":              {Workers: "7"},
		"--workers":       {Workers: "7"},
		"--worker-memory": {WorkerMemory: "7"},
		"--worker-swap":   {WorkerSwap: "7"},
		"--worker-pids":   {WorkerPids: "7"},
	} {
		got, name, err := read(flag, "7")
		if err != nil || got != want || name != "host" {
			t.Errorf("%s 7: %+v on %s, %v; want %+v", flag, got, name, err, want)
		}
		// A cap that was asked for with a variable that is not set must not be lost.
		if _, _, err := read(flag, ""); err == nil {
			t.Errorf("%s with an empty value was accepted", flag)
		}
	}
	if _, name, err := read("--profile", "t3.small"); err != nil || name != "t3.small" {
		t.Errorf("--profile t3.small: %s, %v", name, err)
	}
	if _, _, err := read("--profile", ""); err == nil {
		t.Error("--profile with an empty value was accepted")
	}
}

// The sandrun.yaml that the help shows is one.
func TestProfilesHelpExample(t *testing.T) {
	_, rest, ok := strings.Cut(profilesCommand().Description, "directory above:\n\n")
	example, _, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatal("the help has no example")
	}
	lines := strings.Split(example, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "   ")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, profiles.FileName), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	set, err := profiles.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Resolve("ci", profiles.Overrides{}, profiles.Host{CPUs: 2, Memory: 8 * profiles.GiB}); err != nil {
		t.Errorf("the example of the help: %v", err)
	}
}
