// Command sandrun gives every test worker its own cgroup v2 leaf with hard caps
// from a machine profile, and says which limit ended which worker.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
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

// run is main without its exit. A command's own status wins over what went wrong
// after it, which is only told.
func run(ctx context.Context, args []string) int {
	err := app().Run(ctx, args)
	code := 0
	var status exitStatus
	if errors.As(err, &status) {
		code = int(status)
	} else if err != nil {
		code = exitError
	}
	for _, e := range told(err) {
		fmt.Fprintf(os.Stderr, "sandrun: %v\n", e)
	}
	return code
}

// told lists the errors in err that are for the user to read: all but an exitStatus.
func told(err error) []error {
	var status exitStatus
	if !errors.As(err, &status) {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	// Only errors.Join puts a status beside others.
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		rest = append(rest, told(e)...)
	}
	return rest
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
		ExitErrHandler:  func(context.Context, *cli.Command, error) {}, // run decides
		Action:          needsSubcommand,
	}
}

// needsSubcommand is the action of a command that does nothing without a subcommand.
func needsSubcommand(_ context.Context, c *cli.Command) error {
	if name := c.Args().First(); name != "" {
		return unknownCommand(c, name)
	}
	if c.Root() == c {
		return cli.ShowRootCommandHelp(c)
	}
	return cli.ShowSubcommandHelp(c)
}

// usageError adds what was probably meant, and the way to the help of the command
// that was misused.
func usageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	hint := ""
	if flag, near := unknownFlag(c, os.Args); near != "" {
		hint = fmt.Sprintf("; did you mean %s instead of %s?", near, flag)
	}
	return fmt.Errorf("%w%s (see '%s --help')", err, hint, c.FullName())
}

// unknownFlag finds the first flag among args that c does not have, and the nearest
// that it has, "" when none is near.
func unknownFlag(c *cli.Command, args []string) (flag, near string) {
	var known []string
	for _, f := range c.Flags {
		known = append(known, f.Names()...)
	}
	for _, arg := range args {
		if arg == "--" {
			break
		}
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && !slices.Contains(known, name) {
			if near := nearest(name, known); near != "" {
				return "--" + name, "--" + near
			}
		}
	}
	return "", ""
}

func unknownCommand(c *cli.Command, name string) error {
	var known []string
	for _, sub := range c.Commands {
		known = append(known, sub.Name)
	}
	hint := ""
	if near := nearest(name, known); near != "" {
		hint = fmt.Sprintf(", did you mean %q?", near)
	}
	return fmt.Errorf("unknown command %q%s (see '%s --help')", name, hint, c.FullName())
}

// nearest is the known word that is at most two letters, or a third of its letters,
// away from word.
func nearest(word string, known []string) (near string) {
	best := max(2, len(word)/3) + 1
	for _, k := range known {
		if d := levenshtein.Distance(word, k, nil); d < best {
			near, best = k, d
		}
	}
	return near
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:         "version",
		Usage:        "print the version",
		OnUsageError: usageError,
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			fmt.Println("sandrun", version)
			return nil
		},
	}
}
