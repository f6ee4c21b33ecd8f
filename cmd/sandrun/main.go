// Command sandrun gives every test worker its own cgroup v2 leaf with hard caps
// from a machine profile, and says which limit ended which worker.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/guest"
)

// version is set by the linker.
var version = "unknown"

// Exit codes of sandrun's own; every other is the command's.
const (
	exitError         = 125 // sandrun could not do its job
	exitNotExecutable = 126
	exitNotFound      = 127
)

// An exitStatus ends sandrun with a status and without a word: what had to be said was said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	guest.Init() // does not return in a process 1 of ours
	os.Exit(run(context.Background(), os.Args))
}

// run is main without its exit.
func run(ctx context.Context, args []string) int {
	err := app().Run(ctx, args)
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(os.Stderr, "sandrun: %v\n", err)
	return exitError
}

func app() *cli.Command {
	return &cli.Command{
		Name:    "sandrun",
		Usage:   "give every test worker its own cgroup v2 leaf, with hard caps from a machine profile",
		Version: version,
		Description: `sandrun exec --profile t3.small -- go test ./...

Each test binary runs under memory.max, memory.swap.max and pids.max of its own.
An overrun ends that worker alone; the summary names it, the limit that fired and
what it used. Where this machine cannot give cgroups, the same command runs inside
an embedded kernel.`,
		Commands: []*cli.Command{
			execCommand(), workerCommand(), profilesCommand(), doctorCommand(),
			kernelCommand(), gcCommand(), versionCommand(),
		},
		Suggest:               true,
		EnableShellCompletion: true,
		ConfigureShellCompletionCommand: func(c *cli.Command) {
			c.Hidden = false
		},
		HideHelpCommand: true,
		OnUsageError:    usageError,
		CommandNotFound: nil,
		ExitErrHandler:  func(context.Context, *cli.Command, error) {}, // run decides
		Action: func(_ context.Context, c *cli.Command) error {
			if name := c.Args().First(); name != "" {
				return unknownCommand(c, name)
			}
			return cli.ShowRootCommandHelp(c)
		},
	}
}

// usageError adds the way to the help of the command that was misused.
func usageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	return fmt.Errorf("%w (see '%s --help')", err, c.FullName())
}

func unknownCommand(c *cli.Command, name string) error {
	if near := cli.SuggestCommand(c.Commands, name); near != "" {
		return fmt.Errorf("unknown command %q, did you mean %q? (see 'sandrun --help')", name, near)
	}
	return fmt.Errorf("unknown command %q (see 'sandrun --help')", name)
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:         "version",
		Usage:        "print the version",
		OnUsageError: usageError,
		Action: func(context.Context, *cli.Command) error {
			fmt.Println("sandrun", version)
			return nil
		},
	}
}
