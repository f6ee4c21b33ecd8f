package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/internal/hungry"
	"github.com/sandrun/sandrun/internal/kerneltest"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
)

func TestMain(m *testing.M) {
	if hungry.Called() {
		os.Exit(hungry.Run(os.Args[1:]))
	}
	kerneltest.Main(m)
}

// A trial is a run of a shell script in which `sandrun worker` is the shim in
// this test binary, and $HUNGRY a program of package hungry.
type trial struct {
	Config
	machine cgroup.Limits
	dir     *RunDir
	script  string
	stdout  *os.File
}

func newTrial(t *testing.T, script string) *trial {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "sandrun")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("HUNGRY", "env "+hungry.Env()+" "+self)
	dir, err := NewRunDir(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return &trial{
		dir: dir, script: script,
		machine: cgroup.Limits{Memory: 400 * mib, Swap: 0, Pids: 200},
		Config: Config{
			Dir: dir.Path, Workers: 4, Reserve: 400 * mib,
			Worker: cgroup.Limits{Memory: 100 * mib, Swap: 0, Pids: 50, OOMGroup: true},
			Classify: func(r sandbox.Request) Placement {
				return Placement{Worker: r.Kind == "worker", Adapter: "command", Label: r.Label}
			},
		},
	}
}

// open makes the tree and the supervisor; both go with the test.
func (tr *trial) open(t *testing.T) *Supervisor {
	t.Helper()
	tree, err := cgroup.Open(t.Context(), cgroup.Options{Run: tr.dir.ID, Machine: tr.machine, Ways: []string{cgroup.Root}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	tr.Tree = tree
	s, err := New(tr.Config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (tr *trial) command(s *Supervisor) Command {
	stdout := tr.stdout
	if stdout == nil {
		stdout = os.Stderr
	}
	return Command{
		Path: "/bin/sh", Argv: []string{"sh", "-c", tr.script}, Dir: "/",
		Env:    append(os.Environ(), sandbox.SocketEnv+"="+s.Socket()),
		Stdout: stdout, Stderr: os.Stderr,
	}
}

func (tr *trial) run(t *testing.T) *report.Run {
	t.Helper()
	s := tr.open(t)
	run, err := s.Run(t.Context(), tr.command(s))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// find finds a worker by its label.
func find(t *testing.T, run *report.Run, label string) report.Worker {
	t.Helper()
	for _, w := range run.Workers {
		if w.Label == label {
			return w
		}
	}
	t.Fatalf("no worker %q among %+v", label, run.Workers)
	return report.Worker{}
}

// run executes a script with the defaults of newTrial.
func run(t *testing.T, script string) *report.Run {
	t.Helper()
	return newTrial(t, script).run(t)
}
