package cgroup

import "context"

type Options struct {
	// Run is the run's id; the tree is named sandrun-<Run>.
	Run string
	// Machine are the caps of the whole run.
	Machine Limits
	// Ways restricts the ways to a subtree; nil tries all of them in order.
	Ways []string
}

type Tree struct{}

func Open(ctx context.Context, o Options) (*Tree, error)     { return nil, ErrNoDelegation }
func (t *Tree) Delegation() Delegation                       { return Delegation{} }
func (t *Tree) Path() string                                 { return "" }
func (t *Tree) Machine() *Node                               { return nil }
func (t *Tree) Main() *Leaf                                  { return nil }
func (t *Tree) NewLeaf(name string, l Limits) (*Leaf, error) { return nil, ErrNotSupported }
func (t *Tree) Close(ctx context.Context) error              { return nil }

// Member gives the leaf name ("worker-0001", "main", "machine", "supervisor") that a path of the kernel log means.
func (t *Tree) Member(kernelPath string) (name string, ok bool) { return "", false }

type Node struct{}

func (n *Node) Name() string             { return "" }
func (n *Node) Path() string             { return "" }
func (n *Node) Limits() Limits           { return Limits{} }
func (n *Node) FD() int                  { return -1 }
func (n *Node) Events() (Events, error)  { return Events{}, nil }
func (n *Node) Peaks() (Peaks, error)    { return Peaks{}, nil }
func (n *Node) Usage() (Usage, error)    { return Usage{}, nil }
func (n *Node) Populated() (bool, error) { return false, nil }
func (n *Node) Kill() error              { return nil }
func (n *Node) Procs() ([]int, error)    { return nil, nil }

// EventsFD is an open cgroup.events: epoll it for EPOLLPRI, then ask Populated.
func (n *Node) EventsFD() int { return -1 }

type Leaf struct{ Node }

func (l *Leaf) Add(pid int) error                { return nil }
func (l *Leaf) Remove(ctx context.Context) error { return nil }

type OOMLog struct{}

func OpenOOMLog() (*OOMLog, error)     { return nil, ErrNotSupported }
func (o *OOMLog) Reports() []OOMReport { return nil }
func (o *OOMLog) Close() error         { return nil }

type OOMReport struct {
	Memcg     string // oom_memcg: kernel path of the cgroup that was full; "" when the machine was
	TaskMemcg string // task_memcg: kernel path of the victim's cgroup
	Task      string
	Pid       int
	Split     Split // of Memcg at the kill; zero when HasSplit is false
	HasSplit  bool
}

func RemoveTree(ctx context.Context, path string) error { return nil }

type State string

const (
	Yes     State = "yes"
	No      State = "no"
	Unknown State = "unknown"
)

type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func Probe(ctx context.Context) []Check { return nil }
