package cgroup

import "context"

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

// Probe looks at everything that a run needs or can use.
func Probe(ctx context.Context) []Check { return nil }
