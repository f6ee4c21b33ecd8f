package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/sandbox"
)

func workerCommand() *cli.Command {
	return &cli.Command{
		Name:      "worker",
		Usage:     "become a worker of the surrounding run: wait for admission, enter a leaf, execute CMD",
		ArgsUsage: "[--label L] -- CMD [ARG...]",
		Description: `Under 'sandrun exec', any tool can start its workers through this:

   sandrun exec --profile t3.large -- xargs -P4 -n1 sandrun worker -- ./check < list

The process keeps its pid, its descriptors and its exit status. The summary calls it
L, or by the name of CMD.`,
		SkipFlagParsing: true,
		OnUsageError:    usageError,
		Action:          runWorker,
	}
}

// runWorker is reached only when the shim, which runs before Go, has left the call
// to it: for help, for mistakes, and when the executable goes by another name.
func runWorker(_ context.Context, c *cli.Command) error {
	args := c.Args().Slice()
	for len(args) > 0 && args[0] != "--" {
		switch {
		case args[0] == "--help" || args[0] == "-h":
			return cli.ShowSubcommandHelp(c)
		case args[0] == "--label" && len(args) > 1:
			args = args[2:]
			continue
		case strings.HasPrefix(args[0], "--label="):
			args = args[1:]
			continue
		case strings.HasPrefix(args[0], "-"):
			return fmt.Errorf("worker: unknown flag %s (see 'sandrun worker --help')", args[0])
		}
		break
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("worker: no command (usage: sandrun worker [--label L] -- CMD [ARG...])")
	}
	if os.Getenv(sandbox.SocketEnv) == "" {
		return fmt.Errorf("worker: %s is not set, so there is no run to be a worker of (start it under 'sandrun exec -- ...')", sandbox.SocketEnv)
	}
	// The shim answers to the name sandrun only.
	return syscall.Exec("/proc/self/exe", append([]string{"sandrun", "worker"}, c.Args().Slice()...), os.Environ())
}
