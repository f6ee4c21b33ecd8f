package main

import (
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/profiles"
)

// overrideFlags are the flags that name a profile and change it.
func overrideFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "profile", Value: "host", Usage: "the machine to run as, `NAME` of 'sandrun profiles'", Validator: notEmpty},
	}, limitFlags()...)
}

// limitFlags are the flags that change a profile.
func limitFlags() []cli.Flag {
	const machine, workers = "machine", "workers"
	flag := func(category, name, usage string, aliases ...string) cli.Flag {
		return &cli.StringFlag{Name: name, Aliases: aliases, Usage: usage, Category: category, Validator: notEmpty}
	}
	return []cli.Flag{
		flag(machine, "memory", "memory.max of the run, all of it: `SIZE`, or a percentage of the profile's memory"),
		flag(machine, "swap", "memory.swap.max of the run: `SIZE`, or a percentage of the profile's swap"),
		flag(machine, "pids", "pids.max of the run: `N` tasks"),
		flag(machine, "cpus", "cpu.max of the run: `N` CPUs, whole or not"),
		flag(workers, "workers", "at most `N` workers at once, or auto: as many as fit", "n"),
		flag(workers, "worker-memory", "memory.max of a worker: `SIZE`, or a percentage of the run's (default: an equal share, or the profile's)"),
		flag(workers, "worker-swap", "memory.swap.max of a worker: `SIZE`, or a percentage of the run's (default: an equal share, or the profile's)"),
		flag(workers, "worker-pids", "pids.max of a worker: `N` tasks"),
	}
}

// notEmpty refuses the value of a variable that was not set: a cap that was asked for
// must not be lost silently.
func notEmpty(s string) error {
	if s == "" {
		return fmt.Errorf("its value is empty; give one, or leave the flag out")
	}
	return nil
}

// readOverrides takes the flags of limitFlags.
func readOverrides(c *cli.Command) profiles.Overrides {
	return profiles.Overrides{
		Memory:       c.String("memory"),
		Swap:         c.String("swap"),
		Pids:         c.String("pids"),
		CPUs:         c.String("cpus"),
		Workers:      c.String("workers"),
		WorkerMemory: c.String("worker-memory"),
		WorkerSwap:   c.String("worker-swap"),
		WorkerPids:   c.String("worker-pids"),
	}
}

// resolveMachine makes the machine that the flags of overrideFlags describe; own
// profiles are looked for upwards from dir. A limit above 0 stands for memory that
// this host has no more of, in bytes.
func resolveMachine(c *cli.Command, dir string, limit int64) (profiles.Machine, error) {
	set, host, err := loadProfiles(dir)
	if err != nil {
		return profiles.Machine{}, err
	}
	if limit > 0 && (host.Limit == 0 || limit < host.Limit) {
		host.Limit = limit
	}
	return set.Resolve(c.String("profile"), readOverrides(c), host)
}

func loadProfiles(dir string) (*profiles.Set, profiles.Host, error) {
	set, err := profiles.Load(dir)
	if err != nil {
		return nil, profiles.Host{}, err
	}
	host, err := profiles.ReadHost()
	return set, host, err
}
