package cgroup

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"

	"github.com/sandrun/sandrun/internal/sys"
)

var benchLimits = Limits{Memory: 64 << 20, Pids: 64, OOMGroup: true}

// BenchmarkLeaf is what one worker costs beside its process: the leaf with its
// caps, the join, the evidence and the removal.
func BenchmarkLeaf(b *testing.B) {
	tree := openTree(b, testMachine)
	home := newLeaf(b, tree, "home", benchLimits)
	b.Cleanup(func() { _ = sys.WriteFileAt(tree.Machine().FD(), "../supervisor/cgroup.procs", []byte("0")) })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l, err := tree.NewLeaf(fmt.Sprintf("w%d", i), benchLimits)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Add(os.Getpid()); err != nil {
			b.Fatal(err)
		}
		if err := home.Add(os.Getpid()); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Events(); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Peaks(); err != nil {
			b.Fatal(err)
		}
		if err := l.Remove(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRawLeaf is the floor: the same directory, caps and join with bare
// system calls, nothing read back and no evidence taken.
func BenchmarkRawLeaf(b *testing.B) {
	tree := openTree(b, testMachine)
	home := newLeaf(b, tree, "home", benchLimits)
	b.Cleanup(func() { _ = sys.WriteFileAt(tree.Machine().FD(), "../supervisor/cgroup.procs", []byte("0")) })
	dir := tree.Machine().FD()
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("w%d", i)
		if err := sys.MkdirAt(dir, name); err != nil {
			b.Fatal(err)
		}
		for _, f := range [][2]string{{"memory.swap.max", "0"}, {"memory.max", "67108864"}, {"pids.max", "64"}, {"memory.oom.group", "1"}, {"cgroup.procs", "0"}} {
			if err := sys.WriteFileAt(dir, name+"/"+f[0], []byte(f[1])); err != nil {
				b.Fatal(err)
			}
		}
		if err := home.Add(os.Getpid()); err != nil {
			b.Fatal(err)
		}
		if err := sys.RmdirAt(dir, name); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkContainerdLeaf is BenchmarkLeaf through github.com/containerd/cgroups,
// which reads nothing back and has no local events and no peak of tasks.
func BenchmarkContainerdLeaf(b *testing.B) {
	tree := openTree(b, testMachine)
	home := newLeaf(b, tree, "home", benchLimits)
	b.Cleanup(func() { _ = sys.WriteFileAt(tree.Machine().FD(), "../supervisor/cgroup.procs", []byte("0")) })
	const mount = "/sys/fs/cgroup"
	group := tree.Machine().Path()[len(mount):]
	memory, swap, group1 := benchLimits.Memory, benchLimits.Swap, true
	r := &cgroup2.Resources{Memory: &cgroup2.Memory{Max: &memory, Swap: &swap, OOMGroup: &group1}, Pids: &cgroup2.Pids{Max: benchLimits.Pids}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m, err := cgroup2.NewManager(mount, fmt.Sprintf("%s/w%d", group, i), r)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.AddProc(uint64(os.Getpid())); err != nil {
			b.Fatal(err)
		}
		if err := home.Add(os.Getpid()); err != nil {
			b.Fatal(err)
		}
		if _, err := m.StatFiltered(cgroup2.StatPids | cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatMemoryEvents); err != nil {
			b.Fatal(err)
		}
		if err := m.Delete(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUsage(b *testing.B) {
	tree := openTree(b, testMachine)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tree.Machine().Usage(); err != nil {
			b.Fatal(err)
		}
	}
}
