package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/profiles"
)

func profilesCommand() *cli.Command {
	return &cli.Command{
		Name:      "profiles",
		Usage:     "list the machines to run as, or explain one",
		ArgsUsage: "[NAME [flags]]",
		Description: `   sandrun profiles                      all of them, with the workers that each recommends
   sandrun profiles t3.small             one, down to the bytes in each kernel file
   sandrun profiles t3.small -n 2        what a flag of 'sandrun exec' would change

Memory: a profile's memory is what its operating system shows. Less the headroom, it
is memory.max of the run. Of that, main keeps what the command itself needs beside its
workers: 384 MiB for a linker or pytest's controller and 256 MiB for a compiler on
each CPU, at most 2 GiB and at most half. The workers share the rest.

Flags: what is given is taken, what depends on it is computed anew.
   --memory          is memory.max of the run; no headroom is taken off it
   -n N              workers share what main leaves; a cap that the profile states
                     itself stays as long as N of them fit
   -n auto           as many workers as fit, at most one for each CPU
   --worker-memory   the profile's workers, or as many of them as fit
   -n N with --worker-memory, --worker-swap, --worker-pids: taken, or an error
   --cpus            changes main's part, the tasks of a worker, and auto

Sizes: K, M, G, T count by 1024, with or without iB; KB, MB, GB, TB by 1000.
50% is of the profile's memory or swap for the run, of the run's for a worker.

Own profiles stand in sandrun.yaml, here or in a directory above:

   profiles:
     ci:
       extends: t3.large          # or one of the file's own
       headroom: {database: 1GiB} # replaces the headroom of t3.large
       workers: 2                 # or a range 2-3, or auto
       worker: {memory: 2GiB, swap: 0, pids: 512}

The keys: extends title vcpus nominal memory swap pids headroom main workers
light_workers worker{memory swap pids} expect basis source. nominal without memory
is what is sold: 1/32 and 64 MiB are taken off it for what the system does not show.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "write JSON"},
		}, limitFlags()...),
		OnUsageError: usageError,
		Action:       runProfiles,
	}
}

func runProfiles(_ context.Context, c *cli.Command) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	set, host, err := loadProfiles(dir)
	if err != nil {
		return err
	}
	name, overrides := c.Args().First(), readOverrides(c)
	switch {
	case c.Args().Len() > 1:
		return fmt.Errorf("profiles: one name at a time, not %q (see 'sandrun profiles --help')", c.Args().Slice())
	case c.Args().Len() == 0 && overrides != profiles.Overrides{}:
		return fmt.Errorf("profiles: a flag changes one profile: name it (sandrun profiles NAME, see 'sandrun profiles --help')")
	case c.Args().Len() == 0 && c.Bool("json"):
		return profiles.WriteListJSON(c.Root().Writer, set, host)
	case c.Args().Len() == 0:
		return profiles.WriteList(c.Root().Writer, set, host)
	}
	m, err := set.Resolve(name, overrides, host)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return profiles.WriteExplanationJSON(c.Root().Writer, &m)
	}
	return profiles.WriteExplanation(c.Root().Writer, &m)
}
