package cgroup

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sandrun/sandrun/internal/sys"
)

// The files testdata/kmsg-*.txt are what Linux 7.2 wrote, recorded with
//
//	go test -run TestOwnCapKills/hog -print-kmsg ./cgroup
//
// and the same with TestMachineKills, TestMachineOfTheHostIsFull and TestManyKills.
var printKmsg = flag.Bool("print-kmsg", false, "print the kernel log from the first out-of-memory kill on")

// crowded is when the kernel began to suppress reports; it logs full ones again
// five seconds later (mm/oom_kill.c, oom_rs).
var crowded time.Time

// awaitFullReports waits until the kernel logs full reports.
func awaitFullReports() { time.Sleep(time.Until(crowded.Add(5 * time.Second))) }

// printLog ends a test that leaves its mark in the kernel log.
func printLog(t *testing.T) {
	t.Helper()
	if !*printKmsg {
		return
	}
	f, err := os.OpenFile(kmsg, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf, seen := make([]byte, maxRecord), false
	if err := conn.Control(func(fd uintptr) {
		for {
			n, err := syscall.Read(int(fd), buf)
			if err != nil {
				return
			}
			seen = seen || bytes.Contains(buf[:n], []byte("invoked oom-killer"))
			if seen {
				_, _ = os.Stdout.Write(buf[:n])
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// The machine itself is full, and no cap of ours: the kill shows in the leaf, and
// an oom nowhere in the tree.
func TestMachineOfTheHostIsFull(t *testing.T) {
	defer printLog(t)
	awaitFullReports()
	log, err := OpenOOMLog()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	// A guest without swap that keeps all but a little of its memory free is full
	// in a second.
	swapOff(t)
	var free int64
	for line := range strings.Lines(readFile("/proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemFree:"); ok {
			if _, err := fmt.Sscan(rest, &free); err != nil {
				t.Fatal(err)
			}
		}
	}
	const minFree = "/proc/sys/vm/min_free_kbytes"
	normal := readFile(minFree)
	write(t, minFree, fmt.Sprint(free-200<<10))
	defer write(t, minFree, normal)
	tree := openTree(t, Limits{Memory: 64 << 30, Swap: 64 << 30, Pids: 100})
	l := newLeaf(t, tree, "worker-0001", Limits{Memory: 32 << 30, Swap: 0, Pids: 10, OOMGroup: true})
	if sig := start(t, into(l), "hog", "4096").wait(); sig != syscall.SIGKILL {
		t.Fatalf("the hog ended with %v", sig)
	}
	if e, m := events(t, l), events(t, tree.Machine()); e.Memory.OOMKill < 1 || e.MemoryLocal.OOM != 0 || m.Memory.OOM != 0 {
		t.Errorf("leaf %+v, machine %+v", e, m)
	}
	rs := log.Reports()
	if len(rs) != 1 || !rs[0].Global || rs[0].Memcg != "" || rs[0].HasSplit {
		t.Fatalf("reports: %+v", rs)
	}
	if name, ok := tree.Member(rs[0].TaskMemcg); !ok || name != "worker-0001" {
		t.Errorf("the victim was in %s", rs[0].TaskMemcg)
	}
}

func parseFile(t testing.TB, name string) []OOMReport {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	p := newOOMParser()
	for _, r := range records(b) {
		p.record(r)
	}
	return p.drain()
}

// records splits a recorded log where /dev/kmsg gave one record to a read: lines
// that begin with a space belong to the record before.
func records(b []byte) [][]byte {
	var out [][]byte
	for line := range bytes.Lines(b) {
		if len(out) > 0 && len(line) > 0 && line[0] == ' ' {
			out[len(out)-1] = append(out[len(out)-1], line...)
			continue
		}
		out = append(out, bytes.Clone(line))
	}
	return out
}

func TestOOMParserOnRecordings(t *testing.T) {
	// The test binary was on a tmpfs: its text is the shmem-rss.
	const kB = 1 << 10
	bare := func(at time.Duration, pid int, anon, shmem int64) OOMReport {
		return OOMReport{Time: at, Killed: []OOMKill{{Pid: pid, Task: "cgroup.test", AnonRSS: anon * kB, FileRSS: 1188 * kB, ShmemRSS: shmem * kB}}}
	}
	for name, want := range map[string][]OOMReport{
		"kmsg-own-cap.txt": {{
			Time:  4120 * time.Millisecond,
			Memcg: "/sandrun-TestOwnCapKills-hog/machine/worker-0001", TaskMemcg: "/sandrun-TestOwnCapKills-hog/machine/worker-0001",
			Task: "cgroup.test", Pid: 760, Usage: 24576 * kB, Limit: 24576 * kB,
			HasSplit: true, Split: Split{Anon: 24887296, Kernel: 278528},
			Killed: []OOMKill{{Pid: 760, Task: "cgroup.test", AnonRSS: 24304 * kB, FileRSS: 1188 * kB, ShmemRSS: 5096 * kB}},
		}},
		"kmsg-machine.txt": {{
			Time:  4620 * time.Millisecond,
			Memcg: "/sandrun-TestMachineKills/machine", TaskMemcg: "/sandrun-TestMachineKills/machine/worker-0001",
			Task: "cgroup.test", Pid: 755, Usage: 65536 * kB, Limit: 65536 * kB,
			HasSplit: true, Split: Split{Anon: 66490368, Kernel: 618496},
			Killed: []OOMKill{{Pid: 755, Task: "cgroup.test", AnonRSS: 42972 * kB, FileRSS: 1188 * kB, ShmemRSS: 5160 * kB}},
		}},
		"kmsg-host.txt": {{
			Time: 39370 * time.Millisecond, Global: true,
			TaskMemcg: "/sandrun-TestMachineOfTheHostIsFull/machine/worker-0001", Task: "cgroup.test", Pid: 754,
			Killed: []OOMKill{{Pid: 754, Task: "cgroup.test", AnonRSS: 2013580 * kB, FileRSS: 4 * kB, ShmemRSS: 5096 * kB}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, parseFile(t, name)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("kmsg-suppressed.txt", func(t *testing.T) {
		got := parseFile(t, "kmsg-suppressed.txt")
		if len(got) != 7 {
			t.Fatalf("%d reports, want 3 full ones and 4 kills without one", len(got))
		}
		for i, r := range got[:3] {
			if want := fmt.Sprintf("/sandrun-TestManyKills/machine/worker-%d", 7+i); r.TaskMemcg != want || r.Memcg != want || len(r.Killed) != 1 {
				t.Errorf("%+v", r)
			}
		}
		want := []OOMReport{
			bare(2190*time.Millisecond, 793, 7924, 5096), bare(2310*time.Millisecond, 798, 7948, 5096),
			bare(2420*time.Millisecond, 802, 7952, 5288), bare(2550*time.Millisecond, 806, 7952, 5096),
		}
		if diff := cmp.Diff(want, got[3:]); diff != "" {
			t.Error(diff)
		}
	})
}

// A foreign line, a forged one and a comm that looks like the kernel's own words
// must not change a report.
func TestOOMParserIsNotFooled(t *testing.T) {
	p := newOOMParser()
	for i, text := range []string{
		"a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
		"memory: usage 20480kB, limit 20480kB, failcnt 65",
		"Memory cgroup stats for /x:",
		"anon 4096",
		"usb 1-1: new device",
		"Tasks state (memory values in pages):",
		"anon 99999999",
		"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x,task_memcg=/x/y,task=a,pid=1,uid=0,pid=77,uid=1000",
		"Memory cgroup out of memory: Killed process 77 (a) total-vm:1) total-vm:57500kB, anon-rss:16kB, file-rss:4kB, shmem-rss:8kB, UID:0 pgtables:84kB oom_score_adj:0",
	} {
		if i == 7 {
			p.record([]byte("12,9,5;oom-kill:constraint=NONE,oom_memcg=/f,task_memcg=/f,task=f,pid=5,uid=0\n"))   // no flags
			p.record([]byte("12,9,5,-;oom-kill:constraint=NONE,oom_memcg=/f,task_memcg=/f,task=f,pid=5,uid=0\n")) // from a process
		}
		p.record([]byte(fmt.Sprintf("4,%d,%d,-;%s\n SUBSYSTEM=x\n", i, 1000*i, text)))
	}
	want := []OOMReport{{
		Memcg: "/x", TaskMemcg: "/x/y", Task: "a,pid=1,uid=0", Pid: 77, Usage: 20480 << 10, Limit: 20480 << 10,
		Split: Split{Anon: 4096}, HasSplit: true,
		Killed: []OOMKill{{Pid: 77, Task: "a) total-vm:1", AnonRSS: 16 << 10, FileRSS: 4 << 10, ShmemRSS: 8 << 10}},
	}}
	if diff := cmp.Diff(want, p.drain()); diff != "" {
		t.Error(diff)
	}
}

func TestOOMParserAfterALoss(t *testing.T) {
	p := newOOMParser()
	p.record([]byte("4,1,1,-;a invoked oom-killer: gfp_mask=0xcc0, order=0\n"))
	p.record([]byte("6,2,1,-;Memory cgroup stats for /x:\n"))
	p.record([]byte("6,3,1,-;anon 4096\n"))
	p.lose()
	p.record([]byte("6,9,1,-;anon 8192\n"))
	p.record([]byte("6,10,2000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/x,task_memcg=/x,task=b,pid=9,uid=0\n"))
	want := []OOMReport{{Time: 2 * time.Second, Memcg: "/x", TaskMemcg: "/x", Task: "b", Pid: 9}}
	if diff := cmp.Diff(want, p.drain()); diff != "" {
		t.Error(diff)
	}
}

// Before Linux 6.10 all of memory.stat came as one record.
func TestOOMParserOneRecordStat(t *testing.T) {
	p := newOOMParser()
	p.record([]byte("4,1,1,-;a invoked oom-killer: gfp_mask=0xcc0, order=0\n"))
	p.record([]byte(`6,2,1,-;Memory cgroup stats for /x:anon 4096\x0afile 12288\x0akernel_stack 16384\x0apagetables 4096\x0ashmem 8192\x0a` + "\n"))
	p.record([]byte("6,10,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/x,task_memcg=/x,task=b,pid=9,uid=0\n"))
	got := p.drain()
	if len(got) != 1 || got[0].Split != (Split{Anon: 4096, File: 4096, Shmem: 8192, Kernel: 20480}) {
		t.Errorf("%+v", got)
	}
}

func FuzzOOMParser(f *testing.F) {
	files, err := filepath.Glob("testdata/kmsg-*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newOOMParser()
		for _, r := range records(b) {
			p.record(r)
		}
		for _, r := range p.drain() {
			if r.Pid < 0 || r.Usage < 0 || r.Limit < 0 || r.SwapUsage < 0 || r.SwapLimit < 0 || r.Time < 0 {
				t.Errorf("negative: %+v", r)
			}
			if s := r.Split; s.Anon < 0 || s.File < 0 || s.Shmem < 0 {
				t.Errorf("negative: %+v", s)
			}
			if strings.Contains(r.Task, "\n") || r.Global && r.Memcg != "" {
				t.Errorf("%+v", r)
			}
			for _, k := range r.Killed {
				if k.Pid < 0 || k.AnonRSS < 0 || k.FileRSS < 0 || k.ShmemRSS < 0 {
					t.Errorf("negative: %+v", k)
				}
			}
		}
	})
}

func TestRecordFileAtTheEnd(t *testing.T) {
	f, err := sys.OpenRecordFile(kmsg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, maxRecord)
	if n, lost, err := f.Next(buf); n != 0 || lost || err != nil {
		t.Errorf("behind the last record: %d, %v, %v", n, lost, err)
	}
	w, err := os.OpenFile(kmsg, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if _, err := w.WriteString("<6>sandrun: test\n"); err != nil {
		t.Fatal(err)
	}
	if n, _, err := f.Next(buf); err != nil || !strings.Contains(string(buf[:n]), ";sandrun: test") {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
