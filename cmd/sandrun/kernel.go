package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/guest"
)

// kernelCommand is `sandrun kernel`: the guest kernel that runs take where this
// machine's own cgroups cannot be used.
func kernelCommand() *cli.Command {
	return &cli.Command{
		Name:         "kernel",
		Usage:        "install, check or remove the guest kernel",
		OnUsageError: usageError,
		Description: "Where the machine's own cgroups cannot be used, a run goes into a guest kernel: User Mode\n" +
			"Linux, an ordinary process. " + guest.KernelEnv + " names one of your own, with its modules beside it.",
		Commands: []*cli.Command{kernelInstallCommand(), kernelStatusCommand(), kernelRemoveCommand()},
		Action:   needsSubcommand,
	}
}

func kernelInstallCommand() *cli.Command {
	return &cli.Command{
		Name:         "install",
		Usage:        "fetch the guest kernel from Debian and test it",
		OnUsageError: usageError,
		Description: "Fetches Debian's package user-mode-linux with this machine's apt, checked against Debian's\n" +
			"keys, into your cache directory, and boots it once. No root is needed and nothing else changes.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "mirror", Usage: "`URL` of a Debian archive (default: the one this machine's apt uses)", Sources: cli.EnvVars("SANDRUN_MIRROR")},
			&cli.StringSliceFlag{Name: "suite", Usage: "Debian `SUITE`, tried in the order given (default: testing, unstable)"},
			&cli.StringFlag{Name: "keyring", Usage: "`FILE` with the keys of the archive (default: Debian's)", TakesFile: true},
			&cli.BoolFlag{Name: "force", Usage: "install again although a good one is there"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			store := guest.DefaultStore()
			if store.Override != "" {
				return fmt.Errorf("%s=%s is used in the place of an installed kernel: unset it to install one", guest.KernelEnv, store.Override)
			}
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return store.Install(ctx, guest.InstallOptions{
				Suites: c.StringSlice("suite"), Mirror: c.String("mirror"), Keyring: c.String("keyring"),
				Force: c.Bool("force"), Log: c.Root().ErrWriter,
			})
		},
	}
}

func kernelStatusCommand() *cli.Command {
	return &cli.Command{
		Name:         "status",
		Usage:        "check every file of the guest kernel",
		OnUsageError: usageError,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			status, err := guest.DefaultStore().Status()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.Root().Writer)
				e.SetIndent("", "  ")
				return e.Encode(status)
			}
			return printKernel(c.Root().Writer, status)
		},
	}
}

func kernelRemoveCommand() *cli.Command {
	return &cli.Command{
		Name:         "remove",
		Usage:        "remove the installed guest kernel",
		OnUsageError: usageError,
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return guest.DefaultStore().Remove(ctx)
		},
	}
}

// noArguments refuses what a command would otherwise silently ignore.
func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return fmt.Errorf("%s: unknown argument %q (see '%s --help')", c.Name, c.Args().First(), c.FullName())
	}
	return nil
}

func printKernel(w io.Writer, s guest.Status) error {
	if s.Override {
		_, err := fmt.Fprintf(w, "kernel     %s (from %s)\n", s.Kernel, guest.KernelEnv)
		return err
	}
	m := s.Manifest
	origin := "known good"
	if !m.KnownGood {
		origin = "signed, and passed its self-test"
	}
	libc := "as it came"
	if len(m.Lowered) > 0 {
		libc = "older than the kernel's: " + strings.Join(m.Lowered, ", ") + " pointed at the older form"
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	_, err := fmt.Fprintf(w, `kernel     Linux %s, %s
package    %s %s of Debian %s, %s
installed  %s
files      %s: unchanged
libc       %s
self-test  controllers %s, %.2f s
`, m.Release, s.Kernel, m.Package, m.Version, m.Suite, origin, m.Installed.Local().Format("2006-01-02 15:04"),
		strings.Join(names, " "), libc, strings.Join(m.SelfTest.Controllers, " "), m.SelfTest.Seconds)
	return err
}
