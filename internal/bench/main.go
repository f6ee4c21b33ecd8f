// Command bench measures what it costs to run one short program in its own
// capped cgroup: with sandrun, by hand, and with tools that do less or as much.
//
// It boots one guest kernel (one CPU, a throw-away root) and measures every path
// in it, one after the other in each round, so that whatever disturbs a round
// disturbs all of them. Then it measures on the host how long a whole
// `sandrun exec --kernel guest` takes.
//
//	make bench
//	go run ./internal/bench --json
//	go run ./internal/bench --check     # exit 1 unless the goals are met
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/guest"
)

// Words by which bench calls itself.
const (
	insideWord = "inside" // in the guest: measure
	serveWord  = "serve"  // in the guest, below a live sandrun exec: start workers
)

func main() {
	guest.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	Sandrun string // path of the binary to measure
	Rounds  int    // in the guest
	Boots   int    // whole runs on the host
	Memory  int64  // of the guest, bytes
	JSON    bool
	Check   bool
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case insideWord:
			return inside(ctx, args[1:])
		case serveWord:
			return serve(ctx, args[1:])
		}
	}
	o := options{Memory: 4 << 30}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.Sandrun, "sandrun", "bin/sandrun", "the `binary` to measure")
	flags.IntVar(&o.Rounds, "rounds", 40, "rounds in the guest; each runs every path once")
	flags.IntVar(&o.Boots, "boots", 15, "runs of 'sandrun exec --kernel guest' on the host; 0 leaves that out")
	flags.BoolVar(&o.JSON, "json", false, "print JSON")
	flags.BoolVar(&o.Check, "check", false, "fail unless the goals are met")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 || o.Rounds < 1 || o.Boots < 0 {
		return errors.New("usage: bench [--rounds N] [--boots N] ..., with one round at least (see --help)")
	}
	var err error
	if o.Sandrun, err = filepath.Abs(o.Sandrun); err != nil {
		return err
	}
	if _, err := os.Stat(o.Sandrun); err != nil {
		return fmt.Errorf("%w: run `make build` first", err)
	}
	result, err := measureInGuest(ctx, o)
	if err != nil {
		return err
	}
	if o.Boots == 0 {
		result.Missing = append(result.Missing, "sandrun exec --kernel guest: --boots 0")
	} else if result.Exec, err = measureExec(ctx, o); err != nil {
		return err
	}
	if o.JSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(result)
	} else {
		_, err = io.WriteString(os.Stdout, result.String())
	}
	if err != nil {
		return err
	}
	if o.Check {
		return result.check()
	}
	return nil
}

// measureInGuest boots a guest over a throw-away root, runs `bench inside` in it
// and returns what that printed.
func measureInGuest(ctx context.Context, o options) (_ *Result, err error) {
	kernel, modules, err := guest.DefaultStore().Kernel()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sandrun-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	m := &guest.Machine{
		Kernel: kernel, Modules: modules,
		Init:    self,
		Args:    []string{self, insideWord, "--rounds", strconv.Itoa(o.Rounds), "--sandrun", o.Sandrun},
		Env:     os.Environ(),
		Dir:     "/",
		Stdout:  w,
		Stderr:  os.Stderr,
		Memory:  o.Memory,
		Overlay: true,
		RunDir:  dir,
		Timeout: time.Duration(o.Rounds)*3*time.Second + time.Minute,
	}
	err = m.Start(ctx)
	if closing := w.Close(); err != nil {
		return nil, errors.Join(err, closing)
	}
	result := &Result{}
	decodeErr := json.NewDecoder(r).Decode(result)
	if err := m.Wait(); err != nil {
		return nil, fmt.Errorf("in the guest: %w", err)
	}
	if decodeErr != nil {
		return nil, fmt.Errorf("read what the guest measured: %w", decodeErr)
	}
	return result, nil
}

// measureExec times whole runs, from the start of sandrun on the host to its
// end, with the boot of a guest and its power-off between.
func measureExec(ctx context.Context, o options) (Series, error) {
	s := Series{Name: "sandrun exec --kernel guest -- true", What: "boot, run and power off, seen from the host"}
	for range o.Boots {
		cmd := exec.CommandContext(ctx, o.Sandrun, "exec", "--kernel", "guest", "--", "true")
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return s, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
		s.add(time.Since(start))
	}
	return s.done(), nil
}
