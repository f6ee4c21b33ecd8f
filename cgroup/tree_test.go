package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestOpenOnTheBareRoot(t *testing.T) {
	before := ownCgroup()
	m := Limits{Memory: 64<<20 + 5000, Swap: 8 << 20, Pids: 100, CPUs: 0.5}
	tree, err := Open(t.Context(), Options{Run: "r1", Machine: m})
	if err != nil {
		t.Fatal(err)
	}
	if d := tree.Delegation(); d.Via != Root || d.Path != "/sys/fs/cgroup" || len(d.Refused) != 3 {
		t.Errorf("delegation: %+v, want root at /sys/fs/cgroup after three refusals", d)
	}
	if got := ownCgroup(); got != "/sandrun-r1/supervisor" {
		t.Errorf("the caller is in %s", got)
	}
	for file, want := range map[string]string{
		"memory.max": strconv.Itoa(64<<20 + 4096), "memory.swap.max": strconv.Itoa(8 << 20), "pids.max": "100", "cpu.max": "50000 100000",
	} {
		if got := readFile(tree.Machine().Path() + "/" + file); got != want {
			t.Errorf("machine/%s holds %s, want %s", file, got, want)
		}
	}
	if tree.Machine().Limits() != m || tree.Main().Limits() != (Limits{}) {
		t.Errorf("limits of the machine %v and of main %v", tree.Machine().Limits(), tree.Main().Limits())
	}
	if _, err := Open(t.Context(), Options{Run: "r1", Machine: m, Ways: []string{Root}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second run of the same id: %v", err)
	}
	p := start(t, into(tree.Main()), "daemon")
	p.line()
	if err := tree.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := ownCgroup(); got != before {
		t.Errorf("after Close the caller is in %s, it came from %s", got, before)
	}
	if _, err := os.Stat(tree.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close %s: %v", tree.Path(), err)
	}
	if _, err := tree.NewLeaf("late", Limits{Memory: 1 << 20, Pids: 1}); err == nil {
		t.Error("a closed tree made a leaf")
	}
	if err := tree.Close(context.Background()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestLeafHoldsItsLimits(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 20<<20 + 1, Swap: 4096, Pids: 7, CPUs: 1.5, OOMGroup: true})
	for file, want := range map[string]string{
		"memory.max": strconv.Itoa(20 << 20), "memory.swap.max": "4096", "pids.max": "7",
		"memory.oom.group": "1", "cpu.max": "150000 100000",
	} {
		if got := readFile(l.Path() + "/" + file); got != want {
			t.Errorf("%s holds %s, want %s", file, got, want)
		}
	}
	if _, err := tree.NewLeaf("worker-0001", l.Limits()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a leaf was made over one that is there: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "cgroup.procs", "a b", strings.Repeat("x", 129), "a\n"} {
		var bad *NameError
		if _, err := tree.NewLeaf(name, l.Limits()); !errors.As(err, &bad) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, bad := range []Limits{{}, {Memory: 1}, {Memory: 1, Pids: 1, Swap: -1}, {Memory: -1, Pids: 1}, {Memory: 1, Pids: 1, CPUs: 0.001}, {Memory: 1, Pids: 1, CPUs: -1}} {
		if l, err := tree.NewLeaf("bad", bad); err == nil {
			t.Errorf("limits %+v were taken: %s", bad, l.Path())
		}
	}
}

// A cap that the kernel does not hold as asked is an error, and no leaf is left.
func TestReadBackMismatch(t *testing.T) {
	tree := openTree(t, testMachine)
	// Above the page counter's range (PAGE_COUNTER_MAX) the kernel holds "max".
	_, err := tree.NewLeaf("w", Limits{Memory: 1<<63 - 1, Pids: 5})
	var fe *FileError
	if !errors.As(err, &fe) || fe.Op != "read back" || fe.Path != tree.Machine().Path()+"/w/memory.max" || fe.Value != "9223372036854775807" || fe.Fix == "" {
		t.Errorf("memory.max beyond what it can hold: %#v", err)
	}
	// pids.max takes no more than PID_MAX_LIMIT.
	if _, err := tree.NewLeaf("w", Limits{Memory: 1 << 20, Pids: 1 << 40}); !errors.As(err, &fe) || !strings.HasSuffix(fe.Path, "/pids.max") {
		t.Errorf("pids.max beyond what it can hold: %v", err)
	}
	if _, err := os.Stat(tree.Machine().Path() + "/w"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leaf was left behind: %v", err)
	}
}

func TestOwnCapKills(t *testing.T) {
	defer printLog(t)
	awaitFullReports()
	log, err := OpenOOMLog()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	for _, hog := range []string{"hog", "shm"} {
		t.Run(hog, func(t *testing.T) {
			tree := openTree(t, testMachine)
			l := newLeaf(t, tree, "worker-0001", Limits{Memory: 24 << 20, Pids: 50, OOMGroup: true})
			other := newLeaf(t, tree, "worker-0002", Limits{Memory: 24 << 20, Pids: 50, OOMGroup: true})
			bystander := start(t, into(other), "sleep")
			bystander.line()
			p := start(t, into(l), hog, "64")
			if sig := p.wait(); sig != syscall.SIGKILL {
				t.Fatalf("the hog ended with %v", sig)
			}
			e := events(t, l)
			if e.MemoryLocal.OOM < 1 || e.Memory.OOMKill < 1 || e.Memory.OOMGroupKill < 1 {
				t.Errorf("events of the hog: %+v", e)
			}
			if e := events(t, other); e.Memory.OOM != 0 || e.Memory.OOMKill != 0 {
				t.Errorf("events of the bystander: %+v", e)
			}
			if e := events(t, tree.Machine()); e.MemoryLocal.OOM != 0 || e.Memory.OOMKill < 1 {
				t.Errorf("events of the machine: %+v", e)
			}
			pk, err := l.Peaks()
			if err != nil {
				t.Fatal(err)
			}
			if pk.Memory < 23<<20 || pk.Memory > 24<<20 || pk.Pids < 1 || pk.CPU <= 0 {
				t.Errorf("peaks: %+v", pk)
			}
			var r *OOMReport
			for _, x := range log.Reports() {
				if name, ok := tree.Member(x.TaskMemcg); ok && name == "worker-0001" {
					r = &x
				}
			}
			if r == nil {
				t.Fatal("the kernel log told of no kill in the leaf")
			}
			if name, _ := tree.Member(r.Memcg); name != "worker-0001" || r.Pid != p.cmd.Process.Pid || !r.HasSplit || r.Limit != 24<<20 {
				t.Errorf("report: %+v", *r)
			}
			big := r.Split.Anon
			if hog == "shm" {
				big = r.Split.Shmem
			}
			if sum := r.Split.Anon + r.Split.Shmem + r.Split.File + r.Split.Kernel; big < 14<<20 || sum > 25<<20 || sum < 20<<20 {
				t.Errorf("split at the kill: %+v", r.Split)
			}
			if err := other.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			if sig := bystander.wait(); sig != syscall.SIGKILL {
				t.Errorf("the bystander ended with %v before it was removed", sig)
			}
		})
	}
}

// Two leaves, each under its cap, fill the machine: the victim shows a kill
// without an oom of its own, and the machine shows the oom.
func TestMachineKills(t *testing.T) {
	defer printLog(t)
	tree := openTree(t, Limits{Memory: 64 << 20, Pids: 200})
	cap := Limits{Memory: 60 << 20, Pids: 50, OOMGroup: true}
	a, b := newLeaf(t, tree, "worker-0001", cap), newLeaf(t, tree, "worker-0002", cap)
	pa := start(t, into(a), "hog", "40")
	pa.line()
	pb := start(t, into(b), "hog", "40")
	done := make(chan syscall.Signal, 2)
	go func() { done <- pa.wait() }()
	go func() { done <- pb.wait() }()
	select {
	case sig := <-done:
		if sig != syscall.SIGKILL {
			t.Errorf("the victim ended with %v", sig)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was killed")
	}
	ea, eb, em := events(t, a), events(t, b), events(t, tree.Machine())
	if ea.Memory.OOMKill+eb.Memory.OOMKill < 1 || ea.MemoryLocal.OOM+eb.MemoryLocal.OOM != 0 || em.MemoryLocal.OOM < 1 {
		t.Errorf("events\n a %+v\n b %+v\n machine %+v", ea, eb, em)
	}
}

func TestPidsCapRefusesForks(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 128 << 20, Pids: 40})
	p := start(t, into(l), "forks", "30")
	said := p.line()
	e := events(t, l)
	if said == "refused 0" || e.Pids.Max < 1 || e.PidsLocal.Max < 1 {
		t.Errorf("%s; pids.events %+v, local %+v", said, e.Pids, e.PidsLocal)
	}
	if e := events(t, tree.Machine()); e.PidsLocal.Max != 0 {
		t.Errorf("the machine's own pids.max refused nothing, but says %+v", e.PidsLocal)
	}
	pk, err := l.Peaks()
	if err != nil || pk.Pids != 40 {
		t.Errorf("pids.peak %d, %v; want the cap, 40", pk.Pids, err)
	}
	u, err := l.Usage()
	if err != nil || u.Pids < 2 || u.Pids > 40 || u.Split.Anon <= 0 || u.Memory < u.Split.Anon || u.Split.Kernel <= 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestPidsOfTheMachine(t *testing.T) {
	tree := openTree(t, Limits{Memory: 256 << 20, Pids: 30})
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 128 << 20, Pids: 1000})
	if said := start(t, into(l), "forks", "30").line(); said == "refused 0" {
		t.Error(said)
	}
	if e, m := events(t, l), events(t, tree.Machine()); e.PidsLocal.Max != 0 || m.PidsLocal.Max < 1 {
		t.Errorf("leaf %+v, machine %+v: the machine's cap refused", e.PidsLocal, m.PidsLocal)
	}
}

func TestRemoveKillsWhatSetsidLeft(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 64 << 20, Pids: 100})
	p := start(t, into(l), "daemon")
	p.line()
	if sig := p.wait(); sig != 0 {
		t.Fatalf("the parent ended with %v", sig)
	}
	pids, err := l.Procs()
	if err != nil || len(pids) != 1 {
		t.Fatalf("left in the leaf: %v, %v; want the grandchild", pids, err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[0], 0); !errors.Is(err, syscall.ESRCH) && !zombie(pids[0]) {
		t.Errorf("the grandchild %d lives: %v", pids[0], err)
	}
	if l.FD() != -1 {
		t.Errorf("a removed leaf has descriptor %d", l.FD())
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Errorf("a second Remove: %v", err)
	}
	if _, err := l.Events(); err == nil {
		t.Error("a removed leaf gave events")
	}
	if err := l.Add(os.Getpid()); err == nil {
		t.Error("a removed leaf took a process")
	}
}

func zombie(pid int) bool {
	p, err := readStat(pid)
	return err == nil && p.state == 'Z'
}

func TestRemoveWithCgroupsBelow(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 64 << 20, Pids: 100})
	p := start(t, into(l), "nest", l.Path())
	p.line()
	_ = p.wait()
	if pids, err := l.Procs(); err != nil || len(pids) != 1 {
		t.Errorf("Procs does not look below: %v, %v", pids, err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A task that SIGKILL does not end must not hold a removal for ever, and the
// error names it.
func TestRemoveIsBounded(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 64 << 20, Pids: 100})
	tracer := start(t, nil, "tracer", l.Path())
	pid := strings.TrimPrefix(tracer.line(), "ready ")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := l.Remove(ctx)
	var fe *FileError
	if !errors.As(err, &fe) || !strings.Contains(err.Error(), pid+" (") || !strings.Contains(err.Error(), "state ") {
		t.Errorf("Remove with a process that stays: %v", err)
	}
	if d := time.Since(begin); d < 300*time.Millisecond || d > 3*time.Second {
		t.Errorf("Remove took %v of its 300 ms", d)
	}
	if l.FD() < 0 {
		t.Error("the leaf was given up")
	}
	_ = tracer.stdin.Close()
	if err := l.Remove(t.Context()); err != nil {
		t.Errorf("Remove once the process can end: %v", err)
	}
}

// An interrupted run clears up with a context that is done.
func TestRemoveAfterAnInterrupt(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 64 << 20, Pids: 100})
	start(t, into(l), "forks", "3").line()
	start(t, into(tree.Main()), "sleep").line()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Remove(ctx); err != nil {
		t.Error(err)
	}
	if err := tree.Close(ctx); err != nil {
		t.Error(err)
	}
}

// Another run that holds the site keeps no process of this one alive.
func TestCloseKillsBeforeItWaits(t *testing.T) {
	tree := openTree(t, testMachine)
	p := start(t, into(tree.Main()), "sleep")
	p.line()
	site, err := os.Open(tree.Delegation().Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = site.Close() }()
	if err := syscall.Flock(int(site.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var fe *FileError
	if err := tree.Close(ctx); !errors.As(err, &fe) || fe.Op != "lock" {
		t.Errorf("Close of a tree whose site is held: %v", err)
	}
	if !zombie(p.cmd.Process.Pid) {
		t.Error("the process lives on")
	}
	if err := site.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(t.Context()); err != nil {
		t.Errorf("Close once the site is free: %v", err)
	}
	if _, err := os.Stat(tree.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestKillWithoutCgroupKill(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 128 << 20, Pids: 60})
	start(t, into(l), "forks", "20").line()
	if err := l.killFrozen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if gone, err := l.WaitEmpty(ctx); err != nil || !gone {
		pids, _ := l.Procs()
		t.Fatalf("still there: %v, %v", pids, err)
	}
	if got := readFile(l.Path() + "/cgroup.freeze"); got != "0" {
		t.Errorf("cgroup.freeze holds %s", got)
	}
}

func TestWaitEmpty(t *testing.T) {
	tree := openTree(t, testMachine)
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 64 << 20, Pids: 100})
	p := start(t, into(l), "sleep")
	p.line()
	short, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if gone, err := l.WaitEmpty(short); gone || err != nil {
		t.Errorf("WaitEmpty of a leaf with a process: %v, %v", gone, err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = p.cmd.Process.Kill() })
	if gone, err := l.WaitEmpty(t.Context()); !gone || err != nil {
		t.Errorf("WaitEmpty: %v, %v", gone, err)
	}
}

// Leaves are made and removed by many goroutines at once, as the supervisor does
// when it makes them beforehand.
func TestChurn(t *testing.T) {
	const leaves, workers = 2000, 8
	tree := openTree(t, testMachine)
	before := openFDs(t)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range leaves / workers {
				l, err := tree.NewLeaf(fmt.Sprintf("worker-%d-%d", w, i), Limits{Memory: 16 << 20, Pids: 10, OOMGroup: true})
				if err != nil {
					t.Error(err)
					return
				}
				// A zombie counts as a task of its cgroup until it is reaped.
				reap := func() error { return nil }
				if i%10 == 0 {
					c := helperCommand("sleep")
					c.SysProcAttr = into(l)
					if err := c.Start(); err != nil {
						t.Error(err)
						return
					}
					reap = c.Wait
				}
				if _, err := l.Events(); err != nil {
					t.Error(err)
				}
				if _, err := l.Peaks(); err != nil {
					t.Error(err)
				}
				if err := l.Remove(t.Context()); err != nil {
					t.Error(err)
				}
				_ = reap()
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(tree.Machine().Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "main" {
			t.Errorf("left behind: %s", e.Name())
		}
	}
	if after := openFDs(t); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestMember(t *testing.T) {
	tree := &Tree{path: "/sys/fs/cgroup/sandrun-r1"}
	for path, want := range map[string]string{
		"/sandrun-r1/machine/worker-0001":                                 "worker-0001",
		"/user.slice/sandrun-r1.scope/sandrun-r1/machine/worker-0001/a/b": "worker-0001",
		"/x/sandrun-r1/machine":                                           "machine",
		"/sandrun-r1/supervisor":                                          "supervisor",
		"/sandrun-r1/machine/main":                                        "main",
		"/sandrun-r1":                                                     "",
		"/sandrun-r10/machine/worker-0001":                                "-",
		"/":                                                               "-",
		"/user.slice/sandrun-r1.scope":                                    "-",
	} {
		name, ok := tree.Member(path)
		if !ok {
			name = "-"
		}
		if name != want {
			t.Errorf("Member(%q) = %q, want %q", path, name, want)
		}
	}
}

// The kernel suppresses reports when there are many; each kill is still seen.
func TestManyKills(t *testing.T) {
	defer printLog(t)
	defer func() { crowded = time.Now() }()
	log, err := OpenOOMLog()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	tree := openTree(t, testMachine)
	pids := make(map[int]bool)
	var reports []OOMReport // the kernel's log buffer may hold no more than three
	for i := range 14 {
		l := newLeaf(t, tree, fmt.Sprintf("worker-%d", i), Limits{Memory: 8 << 20, Pids: 20})
		p := start(t, into(l), "hog", "32")
		if sig := p.wait(); sig != syscall.SIGKILL {
			t.Fatalf("hog %d ended with %v", i, sig)
		}
		pids[p.cmd.Process.Pid] = true
		reports = append(reports, log.Reports()...)
	}
	for _, r := range reports {
		if len(r.Killed) != 1 || !pids[r.Killed[0].Pid] || r.Killed[0].AnonRSS <= 0 {
			t.Errorf("report: %+v", r)
			continue
		}
		delete(pids, r.Killed[0].Pid)
	}
	if len(pids) > 0 {
		t.Errorf("not seen: %v", pids)
	}
}
