package cgroup

import (
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// A Node is one cgroup of a run's tree, held by an open descriptor of its
// directory: every file is opened relative to that, so that a path is walked
// once and a directory made anew under the same name is never mistaken for this
// one. Its methods may be called from several goroutines.
type Node struct {
	name   string
	path   string
	limits Limits
	has    features

	// mu lets readers in together and keeps close from taking the descriptors
	// (and the kernel from handing out their numbers again) under a reader.
	mu     sync.RWMutex
	fd     int // the directory, -1 when closed
	events int // cgroup.events, -1 when closed
}

// open takes hold of the cgroup name under the directory parent.
func (n *Node) open(parent int, parentPath, name string) (err error) {
	n.name, n.path, n.fd, n.events = name, parentPath+"/"+name, -1, -1
	if n.fd, err = sys.OpenDirAt(parent, name); err != nil {
		return &FileError{Op: "open", Path: n.path, Err: err}
	}
	if n.events, err = sys.OpenAt(n.fd, "cgroup.events"); err != nil {
		n.close()
		return n.fail("open", "cgroup.events", "", err)
	}
	return nil
}

// close releases the descriptors; the cgroup stays.
func (n *Node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, fd := range []*int{&n.events, &n.fd} {
		if *fd >= 0 {
			_ = sys.CloseFD(*fd)
			*fd = -1
		}
	}
}

// Name is the last element of Path.
func (n *Node) Name() string { return n.name }

// Path is the absolute directory under the cgroup2 mount.
func (n *Node) Path() string { return n.path }

// Limits are the caps that were written and read back; the zero value when the
// cgroup has none of its own.
func (n *Node) Limits() Limits { return n.limits }

// FD is the directory's descriptor, for clone3's CLONE_INTO_CGROUP
// (syscall.SysProcAttr.CgroupFD). It is valid until the cgroup is removed, -1 then.
func (n *Node) FD() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.fd
}

// Populated reports whether a process lives in this cgroup or below it. Zombies
// do not count. A process that was waited for may still count for some
// milliseconds.
func (n *Node) Populated() (bool, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.events < 0 {
		return false, nil
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	k, err := sys.Pread(n.events, buf[:], 0)
	if err != nil {
		return false, n.fail("read", "cgroup.events", "", err)
	}
	populated := true
	if err := flatKeyed(buf[:k], func(key []byte, v int64) {
		if string(key) == "populated" {
			populated = v != 0
		}
	}); err != nil {
		return false, n.fail("read", "cgroup.events", "", err)
	}
	return populated, nil
}

// Events reads the counters: memory.events, memory.events.local,
// memory.swap.events, pids.events and pids.events.local. The counters of a file
// that this kernel does not have are Absent.
func (n *Node) Events() (Events, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var e Events
	var err error
	if e.Memory, err = n.memoryEvents("memory.events"); err != nil {
		return e, err
	}
	switch {
	case !n.has.memoryLocal:
		e.MemoryLocal = MemoryEvents{Absent, Absent, Absent, Absent, Absent, Absent}
	case e.Memory != MemoryEvents{}:
		if e.MemoryLocal, err = n.memoryEvents("memory.events.local"); err != nil {
			return e, err
		}
	}
	err = n.keyed("memory.swap.events", func(key []byte, v int64) {
		switch string(key) {
		case "high":
			e.Swap.High = v
		case "max":
			e.Swap.Max = v
		case "fail":
			e.Swap.Fail = v
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		e.Swap, err = SwapEvents{Absent, Absent, Absent}, nil
	}
	if err != nil {
		return e, err
	}
	if e.Pids, err = n.pidsEvents("pids.events"); err != nil {
		return e, err
	}
	switch {
	case !n.has.pidsLocal:
		e.PidsLocal = PidsEvents{Max: Absent}
	case e.Pids != PidsEvents{}:
		e.PidsLocal, err = n.pidsEvents("pids.events.local")
	}
	return e, err
}

// features are the event files that this kernel has. They are looked for once,
// not in every leaf: what a local file counts, its hierarchical twin counts too,
// so that a leaf without events needs no more than the latter.
type features struct{ memoryLocal, pidsLocal bool }

// look finds out which event files there are.
func (n *Node) look() (f features, err error) {
	for file, has := range map[string]*bool{"memory.events.local": &f.memoryLocal, "pids.events.local": &f.pidsLocal} {
		fd, err := sys.OpenAt(n.fd, file)
		switch {
		case err == nil:
			*has = true
			_ = sys.CloseFD(fd)
		case !errors.Is(err, fs.ErrNotExist):
			return f, n.fail("open", file, "", err)
		}
	}
	return f, nil
}

func (n *Node) memoryEvents(file string) (MemoryEvents, error) {
	e := MemoryEvents{OOMGroupKill: Absent}
	err := n.keyed(file, func(key []byte, v int64) {
		switch string(key) {
		case "low":
			e.Low = v
		case "high":
			e.High = v
		case "max":
			e.Max = v
		case "oom":
			e.OOM = v
		case "oom_kill":
			e.OOMKill = v
		case "oom_group_kill":
			e.OOMGroupKill = v
		}
	})
	return e, err
}

func (n *Node) pidsEvents(file string) (PidsEvents, error) {
	var e PidsEvents
	err := n.keyed(file, func(key []byte, v int64) {
		if string(key) == "max" {
			e.Max = v
		}
	})
	return e, err
}

// Peaks reads memory.peak, memory.swap.peak, pids.peak and cpu.stat. A peak
// whose file this kernel does not have is Absent.
func (n *Node) Peaks() (Peaks, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var p Peaks
	var err error
	if p.Memory, err = n.optional("memory.peak"); err != nil {
		return p, err
	}
	if p.Swap, err = n.optional("memory.swap.peak"); err != nil {
		return p, err
	}
	if p.Pids, err = n.optional("pids.peak"); err != nil {
		return p, err
	}
	err = n.keyed("cpu.stat", func(key []byte, v int64) {
		d := time.Duration(v) * time.Microsecond
		switch string(key) {
		case "usage_usec":
			p.CPU = d
		case "user_usec":
			p.CPUUser = d
		case "system_usec":
			p.CPUSystem = d
		case "throttled_usec":
			p.Throttled = d
		}
	})
	return p, err
}

// Memory reads memory.current, in bytes.
func (n *Node) Memory() (int64, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.value("memory.current")
}

// Usage reads memory.current, memory.stat, memory.swap.current and pids.current.
func (n *Node) Usage() (Usage, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var u Usage
	var err error
	if u.Memory, err = n.value("memory.current"); err != nil {
		return u, err
	}
	if u.Swap, err = n.optional("memory.swap.current"); err != nil {
		return u, err
	}
	if u.Pids, err = n.value("pids.current"); err != nil {
		return u, err
	}
	u.Split, err = n.split()
	return u, err
}

func (n *Node) split() (Split, error) {
	var s statSplit
	if err := n.keyed("memory.stat", s.set); err != nil {
		return Split{}, err
	}
	return s.split(), nil
}

// statSplit gathers a Split from the keys of memory.stat, which the kernel log
// also prints when it kills.
type statSplit struct {
	anon, file, shmem, kernel, parts int64
}

func (s *statSplit) set(key []byte, v int64) {
	switch string(key) {
	case "anon":
		s.anon = v
	case "file":
		s.file = v
	case "shmem":
		s.shmem = v
	case "kernel": // Linux 5.18: the sum of all kernel memory
		s.kernel = v
	case "kernel_stack", "pagetables", "sec_pagetables", "percpu", "slab", "vmalloc":
		s.parts += v
	}
}

func (s *statSplit) split() Split {
	kernel := s.kernel
	if kernel == 0 {
		kernel = s.parts
	}
	return Split{Anon: s.anon, Shmem: s.shmem, File: max(s.file-s.shmem, 0), Kernel: kernel}
}

// optional is value, with Absent for a file that is not there.
func (n *Node) optional(file string) (int64, error) {
	v, err := n.value(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	return v, err
}

func (n *Node) value(file string) (int64, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	k, err := sys.ReadFileAt(n.fd, file, buf[:])
	if err != nil {
		return 0, n.fail("read", file, "", err)
	}
	v, err := parseValue(buf[:k])
	if err != nil {
		return 0, n.fail("read", file, "", err)
	}
	return v, nil
}

// maxStat is more than any flat-keyed file of one cgroup takes: memory.stat, the
// longest, had 1.7 kB in Linux 7.2.
const maxStat = 8 << 10

// A buffer holds one file. They are used again: a fresh one costs two page
// faults, and under User Mode Linux a fault costs more than three system calls.
type buffer [maxStat]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func (n *Node) keyed(file string, set func(key []byte, v int64)) error {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	k, err := sys.ReadFileAt(n.fd, file, buf[:])
	if err != nil {
		return n.fail("read", file, "", err)
	}
	if k == len(buf) {
		return n.fail("read", file, "", errors.New("longer than "+strconv.Itoa(maxStat)+" bytes"))
	}
	if err := flatKeyed(buf[:k], set); err != nil {
		return n.fail("read", file, "", err)
	}
	return nil
}

// fail names the file of this cgroup that could not be used.
func (n *Node) fail(op, file, value string, err error) error {
	return &FileError{Op: op, Path: n.path + "/" + file, Value: value, Err: err}
}
