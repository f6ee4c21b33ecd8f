package cgroup

import "time"

// Absent is the value of a counter or peak whose file this kernel does not have.
const Absent = -1

// Events are a cgroup's counters, cumulative since it was made. Read them after
// the cgroup is empty and before it is removed.
//
// Who hit which limit is read from the local files: a leaf killed by its own
// memory.max has MemoryLocal.OOM > 0; a leaf killed because a cgroup above it
// was full has Memory.OOMKill > 0 and MemoryLocal.OOM == 0.
type Events struct {
	Memory      MemoryEvents // memory.events: this cgroup and all below it
	MemoryLocal MemoryEvents // memory.events.local (Linux 5.2): this cgroup's own limits only
	Swap        SwapEvents   // memory.swap.events
	// Pids is pids.events: since Linux 6.11 how often pids.max of this cgroup or
	// one below refused a fork; before, how often a fork was refused in this
	// cgroup, by whatever limit.
	Pids PidsEvents
	// PidsLocal is pids.events.local (Linux 6.11): forks that this cgroup's own
	// pids.max refused. Absent on older kernels.
	PidsLocal PidsEvents
}

// MemoryEvents are the counters of memory.events and memory.events.local.
type MemoryEvents struct {
	Low, High int64
	Max       int64 // allocations that met memory.max and had to reclaim first
	OOM       int64 // allocations about to fail at memory.max
	// OOMKill counts kills by any out-of-memory killer, the host's included. It
	// is no count of victims under memory.oom.group: test it for > 0.
	OOMKill      int64
	OOMGroupKill int64 // Linux 5.17; Absent before
}

// SwapEvents are the counters of memory.swap.events.
type SwapEvents struct {
	High int64
	Max  int64 // swap allocations that met memory.swap.max
	Fail int64 // swap allocations that failed, at the limit or because swap was full
}

// PidsEvents are the counters of pids.events and pids.events.local.
type PidsEvents struct {
	Max int64 // forks refused
}

// Peaks are the largest use of a cgroup since it was made, and its CPU time.
type Peaks struct {
	// Memory is memory.peak in bytes (Linux 5.19): page cache included, clipped
	// at memory.max.
	Memory int64
	Swap   int64 // memory.swap.peak in bytes (Linux 6.5)
	Pids   int64 // pids.peak in tasks (Linux 6.1)

	CPU       time.Duration // cpu.stat usage_usec
	CPUUser   time.Duration // cpu.stat user_usec
	CPUSystem time.Duration // cpu.stat system_usec
	Throttled time.Duration // cpu.stat throttled_usec: time that cpu.max held it back
}

// Usage is what a cgroup uses now.
type Usage struct {
	Memory int64 // memory.current in bytes
	Split  Split
	Swap   int64 // memory.swap.current in bytes; Absent without swap accounting
	Pids   int64 // pids.current in tasks
}

// Split says what memory is used for; bytes, from memory.stat.
type Split struct {
	Anon   int64
	Shmem  int64 // tmpfs, /dev/shm, memfd
	File   int64 // page cache without Shmem (memory.stat counts Shmem into "file")
	Kernel int64 // stacks, page tables, slab, per-CPU
}
