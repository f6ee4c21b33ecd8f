package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/guest"
	"github.com/sandrun/sandrun/internal/sys"
)

// program is what every path runs: it does nothing, so all that is measured is the path.
const program = "/bin/true"

// warmUps are rounds that are not counted.
const warmUps = 3

// burst is how often each path runs in a round, back to back; the round's figure
// is the time of one of them. So each path starts as warm as any other, and what a
// path leaves to be done afterwards is in the next one's time.
const burst = 5

// A path is one way to run the program.
type path struct {
	name, what string
	round      func() (time.Duration, error) // of one run
	close      func() error
}

// times makes a round of what runs once.
func times(once func() (time.Duration, error)) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		start := time.Now()
		for range burst {
			if _, err := once(); err != nil {
				return 0, err
			}
		}
		return time.Since(start) / burst, nil
	}
}

// inside measures all paths in turn and prints a Result as JSON.
func inside(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench "+insideWord, flag.ContinueOnError)
	rounds := flags.Int("rounds", 0, "")
	sandrun := flags.String("sandrun", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !guest.Inside() {
		return errors.New("bench " + insideWord + " makes cgroups and mounts: it runs in a guest only")
	}
	facts, err := guest.ReadFacts()
	if err != nil {
		return err
	}
	result := &Result{Schema: 1, Kernel: facts.Kernel, CPUs: runtime.NumCPU(), Rounds: *rounds, Burst: burst}
	work, err := os.MkdirTemp("/run", "bench-")
	if err != nil {
		return err
	}
	if err := enableControllers(); err != nil {
		return err
	}
	paths, err := prepare(ctx, work, *sandrun, result)
	defer func() {
		for _, p := range paths {
			if p.close != nil {
				err = errors.Join(err, p.close())
			}
		}
	}()
	if err != nil {
		return err
	}
	series := make([]Series, len(paths))
	for round := range warmUps + *rounds {
		for i, p := range paths {
			d, err := p.round()
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round >= warmUps {
				series[i].add(d)
			}
			time.Sleep(5 * time.Millisecond) // the last one's aftermath is not the next path's
		}
	}
	for i, p := range paths {
		series[i].Name, series[i].What = p.name, p.what
		s := series[i].done()
		if i > 0 {
			s.Ratio = s.Median / result.Paths[0].Median
		} else {
			s.Ratio = 1
		}
		result.Paths = append(result.Paths, s)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// prepare makes all paths that can be had here; the others go to result.Missing.
func prepare(ctx context.Context, work, sandrun string, result *Result) (paths []path, err error) {
	paths = append(paths,
		path{name: pathExec, what: program + ", nothing else", round: times(func() (time.Duration, error) {
			return timed(nil, program)
		})},
		path{name: pathLeaf, what: "mkdir, 5 limits, clone into it, rmdir", round: times(rawLeaf)},
	)
	keepOpen(program)
	keepOpen(sandrun)
	below, err := startServer(ctx, sandrun)
	if err != nil {
		return paths, err
	}
	paths = append(paths,
		path{name: pathWorker, what: "admission, leaf, caps read back, exec, verdict, removal", round: below.all, close: below.close},
		path{name: pathWall, what: "the same without what follows the exit of the program", round: below.seen},
	)
	bundle, err := newBundle(work)
	if err != nil {
		return paths, err
	}
	for _, peer := range []struct {
		path
		program string
		args    func(id string) []string
	}{
		{path{name: pathBwrap, what: "namespaces, read-only root; no limits"}, "bwrap", func(string) []string {
			return []string{"--unshare-all", "--ro-bind", "/", "/", program}
		}},
		{path{name: pathCrun, what: "container with the same limits"}, "crun", bundle.run},
		{path{name: pathRunc, what: "container with the same limits"}, "runc", bundle.run},
	} {
		file, err := exec.LookPath(peer.program)
		if err != nil {
			result.Missing = append(result.Missing, fmt.Sprintf("%s: not installed", peer.name))
			continue
		}
		keepOpen(file)
		var n int
		p := peer.path
		p.round = times(func() (time.Duration, error) {
			n++
			return timed(nil, file, peer.args(fmt.Sprintf("bench-%s-%d", peer.program, n))...)
		})
		paths = append(paths, p)
	}
	return paths, nil
}

// keepOpen opens a file for good: the guest's host file system drops a file's
// pages when nobody has it open, and every path should find its program in memory.
func keepOpen(file string) {
	if f, err := os.Open(file); err == nil {
		kept = append(kept, f)
	}
}

var kept []*os.File

// timed runs a program without input and output and returns the time from
// before its fork until it was waited for.
func timed(attr *syscall.SysProcAttr, file string, args ...string) (time.Duration, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	start := time.Now()
	p, err := os.StartProcess(file, append([]string{file}, args...), &os.ProcAttr{
		Files: []*os.File{null, null, os.Stderr},
		Env:   os.Environ(),
		Sys:   attr,
	})
	if err != nil {
		return 0, err
	}
	state, err := p.Wait()
	d := time.Since(start)
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s %v: %s", file, args, state)
	}
	return d, err
}

// limits is what every path that has a cgroup writes to it; those of sandrun are
// the same four files and memory.oom.group.
const (
	limitMemory = 512 << 20 // bytes
	limitPids   = 256
	limitCPU    = "200000 100000" // microseconds in each period of microseconds: two CPUs
)

const cgroupRoot = "/sys/fs/cgroup"

// enableControllers lets children of the root cgroup have limits.
func enableControllers() error {
	file := cgroupRoot + "/cgroup.subtree_control"
	if err := os.WriteFile(file, []byte("+memory +pids +cpu"), 0); err != nil {
		return fmt.Errorf("enable controllers: %w", err)
	}
	return nil
}

// rawLeaf is the least that a leaf can cost: no read-back, no accounts, no verdict.
func rawLeaf() (time.Duration, error) {
	const leaf = cgroupRoot + "/bench-leaf"
	start := time.Now()
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return 0, err
	}
	for _, l := range [][2]string{
		{"memory.swap.max", "0"},
		{"memory.max", fmt.Sprint(limitMemory)},
		{"pids.max", fmt.Sprint(limitPids)},
		{"memory.oom.group", "1"},
		{"cpu.max", limitCPU},
	} {
		f, err := os.OpenFile(leaf+"/"+l[0], os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) && l[0] == "memory.swap.max" {
			continue // a kernel without swap
		}
		if err != nil {
			return 0, err
		}
		_, err = f.WriteString(l[1])
		if err = errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
	}
	dir, err := os.Open(leaf)
	if err != nil {
		return 0, err
	}
	_, err = timed(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}, program)
	if err = errors.Join(err, dir.Close()); err != nil {
		return 0, err
	}
	// A leaf stays busy for a moment after its last process was waited for.
	for range 1000 {
		if err = os.Remove(leaf); !errors.Is(err, syscall.EBUSY) {
			return time.Since(start), err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return 0, err
}

// A bundle is an OCI bundle over a read-only view of the root, with the least
// that a container has.
type bundle struct{ dir string }

func newBundle(work string) (*bundle, error) {
	b := &bundle{dir: work + "/bundle"}
	root := b.dir + "/rootfs"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	if err := sys.BindMount("/", root); err != nil {
		return nil, err
	}
	type object = map[string]any
	config := object{
		"ociVersion": "1.0.2",
		"process": object{
			"args": []string{program}, "cwd": "/", "env": []string{"PATH=/usr/bin:/bin"},
			"user": object{"uid": 0, "gid": 0}, "noNewPrivileges": true,
		},
		"root": object{"path": "rootfs", "readonly": true},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
		},
		"linux": object{
			"resources": object{
				"memory": object{"limit": limitMemory, "swap": limitMemory}, // memory and swap together
				"pids":   object{"limit": limitPids},
				"cpu":    object{"quota": 200000, "period": 100000},
			},
			"namespaces": []object{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}},
		},
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.dir+"/config.json", data, 0o644)
}

// run is the arguments by which crun and runc alike run the bundle once. Without
// --systemd-cgroup both write to the cgroup file system themselves.
func (b *bundle) run(id string) []string {
	return []string{"run", "--bundle", b.dir, id}
}
