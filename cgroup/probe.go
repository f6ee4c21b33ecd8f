package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

// A State is the answer of a probe. Only Yes and No are answers; Unknown says
// that the probe could not tell.
type State string

// The states.
const (
	Yes     State = "yes"
	No      State = "no"
	Unknown State = "unknown"
)

// A Check is one probed property of the machine.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`        // what was found
	Fix    string `json:"fix,omitempty"` // what mends it, when it is wrong
}

// DelegationCheck is the name of the check that says whether Open would give a
// tree; the checks named "delegation: <way>" say it of each way.
const DelegationCheck = "delegation"

// Probe looks at everything that a run needs or can use. Where it can it tries
// the thing itself: it opens a tree, makes a leaf and starts a process in it, and
// removes them. What a leaf would show is Unknown where there is no leaf.
func Probe(ctx context.Context) []Check {
	checks := []Check{probeMount()}
	tree, ways := probeWays(ctx)
	checks = append(checks, ways...)
	var leaf *Leaf
	if tree != nil {
		var err error
		leaf, err = tree.NewLeaf("probe", probeLimits)
		if err != nil {
			checks = append(checks, Check{Name: "leaf", State: No, Detail: err.Error()})
		}
	}
	checks = append(checks, probeControllers(leaf), probeSwap(leaf))
	for _, f := range leafFiles {
		checks = append(checks, f.probe(leaf))
	}
	checks = append(checks, probeClone(leaf))
	if tree != nil {
		if err := tree.Close(ctx); err != nil {
			checks = append(checks, Check{Name: "removal", State: No, Detail: err.Error()})
		}
	}
	return append(checks, probeMachine()...)
}

// probeLimits are those of the tree and the leaf that Probe makes.
var probeLimits = Limits{Memory: 32 << 20, Pids: 16, OOMGroup: true}

func probeMount() Check {
	c := Check{Name: "cgroup v2"}
	h, err := findHierarchy()
	switch {
	case errors.Is(err, ErrNotSupported):
		c.State, c.Detail = No, strip(err)
		c.Fix = "boot with systemd.unified_cgroup_hierarchy=1, or use the guest kernel"
	case err != nil:
		c.State, c.Detail = Unknown, err.Error()
	case h.readOnly:
		c.State, c.Detail = No, h.mount+" is mounted read-only"
		c.Fix = "mount -o remount,rw " + h.mount
	default:
		c.State, c.Detail = Yes, "mounted at "+h.mount
	}
	return c
}

// strip leaves out the way out, in the last parentheses, which a Check has apart.
func strip(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, " ("); i > 0 && strings.HasSuffix(s, ")") {
		s = s[:i]
	}
	return strings.TrimSuffix(s, ": "+ErrNotSupported.Error())
}

// probeWays tries the ways as Open does and keeps the first tree.
func probeWays(ctx context.Context) (*Tree, []Check) {
	total := Check{Name: DelegationCheck, State: No, Detail: ErrNoDelegation.Error(), Fix: "use the guest kernel (sandrun kernel install), or have a cgroup delegated: see the ways below"}
	if _, err := findHierarchy(); err != nil {
		total.Fix = "use the guest kernel (sandrun kernel install), or mend cgroup v2 first"
		return nil, []Check{total} // the check before says it
	}
	var tree *Tree
	var ways []Check
	for _, via := range Ways() {
		c := Check{Name: DelegationCheck + ": " + via}
		if tree != nil {
			c.State, c.Detail = Unknown, "not tried: "+tree.Delegation().Via+" serves"
			ways = append(ways, c)
			continue
		}
		t, err := Open(ctx, Options{Run: fmt.Sprintf("probe-%d", os.Getpid()), Machine: probeLimits, Ways: []string{via}})
		if err == nil {
			tree = t
			c.State, c.Detail = Yes, t.Delegation().Path
			total.State, total.Detail, total.Fix = Yes, via+" at "+t.Delegation().Path, ""
		} else {
			c.State, c.Detail, c.Fix = No, err.Error(), ""
			var d *DelegationError
			if errors.As(err, &d) && len(d.Refused) == 1 {
				err = d.Refused[0].Err
				c.Detail = err.Error()
			}
			var fe *FileError
			if errors.As(err, &fe) && fe.Fix != "" {
				c.Detail, c.Fix = strings.TrimSuffix(c.Detail, " ("+fe.Fix+")"), fe.Fix
			}
		}
		ways = append(ways, c)
	}
	return tree, append([]Check{total}, ways...)
}

// probeControllers says which controllers a leaf has, or the own cgroup has.
func probeControllers(leaf *Leaf) Check {
	c := Check{Name: "controllers"}
	dir := ""
	if leaf != nil {
		dir = leaf.Path()
	} else if h, err := findHierarchy(); err != nil {
		c.State, c.Detail = Unknown, "there is no leaf to look into"
		return c
	} else if dir, err = h.self(); err != nil {
		c.State, c.Detail = Unknown, err.Error()
		return c
	}
	b, err := os.ReadFile(path.Join(dir, "cgroup.controllers"))
	if err != nil {
		c.State, c.Detail = Unknown, err.Error()
		return c
	}
	have := strings.Fields(string(b))
	c.State, c.Detail = Yes, strings.Join(have, " ")
	for _, want := range []string{"memory", "pids", "cpu"} {
		if !strings.Contains(" "+c.Detail+" ", " "+want+" ") {
			c.State = No
			c.Fix = "systemd: Delegate=cpu memory pids on the unit (for users: systemctl edit user@.service); else write +" + want + " to cgroup.subtree_control of the cgroup above"
		}
	}
	if c.State == No {
		c.Detail = fmt.Sprintf("only %q in %s", c.Detail, dir)
	}
	return c
}

func probeSwap(leaf *Leaf) Check {
	c := Check{Name: "swap accounting"}
	total := swapTotal()
	switch {
	case leaf != nil:
		c.State, c.Detail = Yes, "memory.swap.max holds" // NewLeaf has read it back
		if total == 0 {
			c.Detail += "; the machine has no swap"
		}
	case total == 0:
		c.State, c.Detail = Yes, "not needed: the machine has no swap"
	default:
		c.State, c.Detail = Unknown, "there is no leaf to look into"
	}
	return c
}

// A leafFile is a file of a leaf that not every kernel has.
type leafFile struct {
	name  string
	since string // the kernel release that brought it
	// without says what is lost where it is missing.
	without string
}

var leafFiles = []leafFile{
	{"memory.peak", "5.19", "the peak is the largest sample"},
	{"memory.swap.peak", "6.5", "the peak of swap is not known"},
	{"pids.peak", "6.1", "the peak of tasks is not known"},
	{"cgroup.kill", "5.14", "a leaf is frozen and killed one process after the other"},
	{"memory.oom.group", "4.19", "a kill may leave parts of a worker"},
	{"memory.events.local", "5.2", "a kill by the machine's cap looks like one by the worker's own"},
	{"pids.events.local", "6.11", "a fork refused by the machine's cap looks like one refused by the worker's own"},
}

func (f leafFile) probe(leaf *Leaf) Check {
	c := Check{Name: f.name}
	if leaf == nil {
		c.State, c.Detail = Unknown, "there is no leaf to look into; Linux has it since "+f.since
		return c
	}
	_, err := os.Stat(leaf.Path() + "/" + f.name)
	switch {
	case err == nil:
		c.State, c.Detail = Yes, "here"
	case os.IsNotExist(err):
		c.State, c.Detail = No, fmt.Sprintf("Linux %s has none: %s", sys.KernelRelease(), f.without)
		c.Fix = "Linux " + f.since + " or newer"
	default:
		c.State, c.Detail = Unknown, err.Error()
	}
	return c
}
