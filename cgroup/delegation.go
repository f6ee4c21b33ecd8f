package cgroup

// The ways to a delegated subtree, in the order in which Open tries them.
const (
	Nested        = "nested"         // the caller's own cgroup is delegated already
	SystemdUser   = "systemd-user"   // a transient scope from the user's systemd
	SystemdSystem = "systemd-system" // a transient scope from the system's systemd
	Root          = "root"           // root, on a hierarchy that nobody else manages
)

// A Delegation is a subtree that the run may fill as it likes.
type Delegation struct {
	Via     string    // Nested, SystemdUser, SystemdSystem or Root
	Path    string    // absolute directory under the cgroup2 mount
	Refused []Refusal // the ways tried before, in order
}

// A Refusal is a way that did not serve, and why.
type Refusal struct {
	Via string
	Err error
}
