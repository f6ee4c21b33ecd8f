package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sandrun/sandrun/supervisor"
)

// collectWithin bounds gc: a task in uninterruptible sleep can hold a cgroup for ever.
const collectWithin = 30 * time.Second

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove what runs whose sandrun was killed have left: processes, cgroups, files",
		Description: `Every run does this for those before it; this command does it now. Runs that are
alive are never touched.`,
		OnUsageError: usageError,
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, collectWithin)
			defer cancel()
			cleared, err := supervisor.Collect(ctx)
			for _, id := range cleared {
				fmt.Printf("cleared run %s\n", id)
			}
			if len(cleared) == 0 && err == nil {
				fmt.Println("nothing to clear")
			}
			return err
		},
	}
}
