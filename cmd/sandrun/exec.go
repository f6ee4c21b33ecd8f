package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/cgroup"
	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/harness"
	"github.com/sandrun/sandrun/internal/sys"
	"github.com/sandrun/sandrun/profiles"
	"github.com/sandrun/sandrun/report"
	"github.com/sandrun/sandrun/sandbox"
	"github.com/sandrun/sandrun/supervisor"
)

func execCommand() *cli.Command {
	toCommand := 1 // after the first word that is no flag, all are the command's
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command, each of its test workers in a leaf of its own",
		ArgsUsage: "-- CMD [ARG...]",
		Description: `   sandrun exec -- go test ./...                       this machine, with headroom
   sandrun exec --profile t3.small -- go test ./...    as on a t3.small
   sandrun exec --profile t3.xlarge -n 4 --worker-memory 2GiB -- make test
   sandrun exec --kernel guest -- go test ./...        in the embedded kernel

The exit status is the command's own; 1 when the command says 0 although a cap
killed a worker; 125 when sandrun could not do its job; 126 and 127 when the
command cannot be executed or is not found.

An interrupt (Ctrl-C) reaches the whole run; a second one kills it.`,
		Flags: append(overrideFlags(),
			&cli.StringFlag{Name: "kernel", Value: "auto", Usage: "`WHERE` the leaves are made: host, guest (the embedded kernel), auto (guest where the host cannot)", Validator: oneOf("auto", "host", "guest")},
			&cli.DurationFlag{Name: "timeout", DefaultText: "no bound", Usage: "kill a worker that runs longer than `D`, such as 90s or 5m", Validator: notNegative},
			&cli.DurationFlag{Name: "run-timeout", DefaultText: "no bound", Usage: "kill the whole run after `D`", Validator: notNegative},
			&cli.StringFlag{Name: "json", Usage: "write the record of the run to `FILE`", TakesFile: true},
			&cli.StringFlag{Name: "guest-memory", Usage: "memory of the guest, `SIZE` (default: the machine's and room for the kernel; 4 GiB of the profile host)"},
			&cli.StringFlag{Name: "guest-swap", Usage: "swap of the guest, `SIZE` (default: the machine's)"},
			&cli.DurationFlag{Name: "guest-boot-timeout", Value: 20 * time.Second, Usage: "how long the guest kernel may take to come up", Validator: notNegative},
			&cli.BoolFlag{Name: "guest-overlay", Usage: "run over a throw-away layer: nothing that the command writes stays"},
			&cli.StringFlag{Name: "guest-network", Value: "auto", Usage: "`NET` of the guest: passt, loopback, auto (passt where it is installed)", Validator: oneOf("auto", "passt", "loopback")},
		),
		StopOnNthArg: &toCommand,
		OnUsageError: usageError,
		Action:       runExec,
	}
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		for _, w := range words {
			if s == w {
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
	}
}

func notNegative(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%v is negative (0 is no bound)", d)
	}
	return nil
}

// A plan is what an exec was asked to do, decided before anything is touched.
type plan struct {
	argv        []string
	path        string // of argv[0]'s executable
	dir         string
	machine     profiles.Machine
	json        string
	workerLimit time.Duration
	runLimit    time.Duration
	as          *syscall.Credential // whom the command runs as; nil for sandrun's own user
	umask       *int                // of the command; nil for sandrun's own
}

func runExec(ctx context.Context, c *cli.Command) error {
	p, err := readPlan(c)
	if err != nil {
		return err
	}
	signals := takeSignals()
	if guest.Inside() {
		return inLeaves(ctx, p, []string{cgroup.Nested, cgroup.Root}, signals)
	}
	switch c.String("kernel") {
	case "host":
		return inLeaves(ctx, p, nil, signals)
	case "guest":
		return inGuest(ctx, c, p, signals)
	}
	err = inLeaves(ctx, p, nil, signals)
	if !errors.Is(err, cgroup.ErrNoDelegation) {
		return err
	}
	inside := inGuest(ctx, c, p, signals)
	if errors.Is(inside, guest.ErrNoKernel) {
		return fmt.Errorf("%w, and there is no guest kernel to do without: %w", err, inside)
	}
	return inside
}

// takeSignals makes the signals that would end sandrun the run's, from before there
// is anything to clear away until the process ends. SIGPIPE is among them: a reader
// of the summary may go away. They are handled, not ignored: what is ignored stays
// ignored in the command.
func takeSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, heeded(syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return signals
}

// heeded are those of the signals that sandrun was not started to ignore: the hangup
// under nohup, the interrupt in a background job of a script. The command ignores
// them too.
func heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, signal.Ignored)
}

func readPlan(c *cli.Command) (plan, error) {
	p := plan{
		argv: c.Args().Slice(), json: c.String("json"),
		workerLimit: c.Duration("timeout"), runLimit: c.Duration("run-timeout"),
	}
	if len(p.argv) == 0 {
		return p, errors.New("exec: no command (usage: sandrun exec [flags] -- CMD [ARG...])")
	}
	var err error
	if p.dir, err = os.Getwd(); err != nil {
		return p, err
	}
	if p.json != "" {
		if err := report.CheckFile(p.json); err != nil {
			return p, err
		}
	}
	if ok, err := p.takeOver(); ok || err != nil {
		return p, err
	}
	if p.machine, err = resolveMachine(c, p.dir, 0); err != nil {
		return p, err
	}
	p.path, err = exec.LookPath(p.argv[0])
	switch {
	case errors.Is(err, exec.ErrDot):
		return p, fmt.Errorf("%w (write ./%s)", err, p.argv[0])
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return p, errors.Join(exitStatus(exitNotFound), fmt.Errorf("%s: command not found", p.argv[0]))
	case err != nil:
		return p, errors.Join(exitStatus(exitNotExecutable), fmt.Errorf("%s: not executable", p.argv[0]))
	}
	return p, nil
}

// startStatus is the exit status for a command that the kernel would not execute
// although it was found; 0 when the error is of something else.
func startStatus(err error) int {
	var e *os.PathError
	if !errors.As(err, &e) || e.Op != "fork/exec" {
		return 0
	}
	switch {
	case errors.Is(e.Err, syscall.ENOENT): // the interpreter in its first line
		return exitNotFound
	case errors.Is(e.Err, syscall.ENOEXEC), errors.Is(e.Err, syscall.EACCES), errors.Is(e.Err, syscall.E2BIG), errors.Is(e.Err, syscall.ETXTBSY):
		return exitNotExecutable
	}
	return 0
}

// inLeaves runs the plan on this kernel: tree, supervisor, summary.
func inLeaves(ctx context.Context, p plan, ways []string, signals <-chan os.Signal) (err error) {
	collecting, cancel := context.WithTimeout(ctx, collectWithin)
	_, _ = supervisor.Collect(collecting) // a failure is for 'sandrun gc' to tell
	cancel()
	dir, err := supervisor.NewRunDir(p.owner())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	tree, err := cgroup.Open(ctx, cgroup.Options{
		Run: dir.ID, Ways: ways,
		Machine: cgroup.Limits{Memory: p.machine.Budget, Swap: p.machine.Swap, Pids: p.machine.Pids, CPUs: p.machine.VCPUs},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close(context.WithoutCancel(ctx))) }()
	status, err := supervise(ctx, p, dir, tree, signals)
	if status != 0 {
		err = errors.Join(exitStatus(status), err)
	}
	return err
}

// owner is the user that the command runs as.
func (p plan) owner() int {
	if p.as != nil {
		return int(p.as.Uid)
	}
	return os.Geteuid()
}

// supervise runs the command in the tree, tells how it went, and returns the exit
// status: an error beside it is of what came after the command.
func supervise(ctx context.Context, p plan, dir *supervisor.RunDir, tree *cgroup.Tree, signals <-chan os.Signal) (int, error) {
	adapters := harness.Default(p.machine.Workers)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	worker := cgroup.Limits{Memory: p.machine.Worker.Memory, Swap: p.machine.Worker.Swap, Pids: p.machine.Worker.Pids, OOMGroup: true}
	links, err := harness.LinkDir(os.Environ(), self, worker.String())
	if err != nil {
		return 0, err
	}
	env, notes, err := adapters.Env(links, os.Environ())
	if err != nil {
		return 0, err
	}

	s, err := supervisor.New(supervisor.Config{
		Dir: dir.Path, Tree: tree, Owner: p.owner(), Signals: signals,
		Workers: p.machine.Workers, Reserve: p.machine.Budget - p.machine.Main, Worker: worker,
		WorkerTimeout: p.workerLimit, RunTimeout: p.runLimit,
		Classify: func(r sandbox.Request) supervisor.Placement {
			adapter, placement, ok := adapters.Place(harness.Request{Kind: r.Kind, Label: r.Label, Argv: r.Argv, Dir: r.Dir})
			return supervisor.Placement{Worker: ok && placement.Worker, Adapter: adapter, Label: placement.Label, Extra: placement.ExtraArgs}
		},
	})
	if err != nil {
		return 0, err
	}
	command := supervisor.Command{
		Path: p.path, Argv: p.argv, Dir: p.dir,
		Env:   append(env, sandbox.SocketEnv+"="+s.Socket()),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Credential: p.as, Umask: p.umask,
	}
	tests, finish, err := follow(&command)
	if err != nil {
		return 0, err
	}
	record, err := s.Run(ctx, command)
	err = errors.Join(err, finish())
	if record == nil {
		return startStatus(err), err
	}
	if tests != nil {
		nameTests(tests, record.Workers)
	}
	identify(record, p, dir.ID, tree)
	record.Notes = slices.Concat(p.machine.Notes, notes, record.Notes, faultNotes(record.Workers))
	return record.Exit, errors.Join(err, tell(record, p.json))
}

// nameTests adds the tests that the command's output named to the workers that
// died in them.
func nameTests(tests harness.Tests, workers []report.Worker) {
	harness.NameTests(tests, workers)
	for i := range workers {
		if w := &workers[i]; w.Test != "" {
			w.Evidence.Why = report.Explain(*w)
		}
	}
}

// identify fills in what the supervisor does not know of its run.
func identify(r *report.Run, p plan, id string, tree *cgroup.Tree) {
	r.Schema, r.ID, r.Version = report.Schema, id, version
	r.Command, r.Dir = p.argv, p.dir
	slices.SortFunc(r.Workers, func(a, b report.Worker) int { return cmp.Compare(a.ID, b.ID) })
	r.Kernel = report.Kernel{Where: "host", Release: sys.KernelRelease(), Delegation: tree.Delegation().Via}
	if guest.Inside() {
		r.Kernel.Where = "guest"
	}
	m := p.machine
	r.Profile = report.Profile{
		Name: m.Name, VCPUs: m.VCPUs, Memory: m.Memory, Budget: m.Budget, Swap: m.Swap, Pids: m.Pids, Workers: m.Workers,
		WorkerLimits: report.Limits{Memory: m.Worker.Memory, Swap: m.Worker.Swap, Pids: m.Worker.Pids},
	}
}

// tell prints the summary and writes the JSON file. A failure is sandrun's, never the run's.
func tell(r *report.Run, file string) error {
	width := 0
	if size, err := sys.GetWinsize(int(os.Stderr.Fd())); err == nil {
		width = int(size.Col)
	}
	err := report.Write(os.Stderr, r, report.OptionsFor(os.Environ(), sys.IsTerminal(int(os.Stderr.Fd())), width))
	if file != "" {
		err = errors.Join(err, report.WriteFile(file, r))
	}
	return err
}
