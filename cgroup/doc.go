// Package cgroup gives each worker of a run a cgroup v2 leaf with hard caps.
//
// Open finds a delegated subtree and builds the run's Tree in it; NewLeaf makes
// a Leaf, whose Limits are written and read back before a process can join;
// Events, Peaks and Usage read what the kernel counted; Remove and Close kill,
// wait and remove. What cannot be had is an error that names the file, the value
// and the way out: nothing ever runs without its caps.
//
// Probe tells what this machine can do of all that. OOMLog reads the kernel's own
// reports of out-of-memory kills. RemoveTree clears what a killed run left.
//
// The files are those of the kernel's Documentation/admin-guide/cgroup-v2.rst,
// and keep their names. There is no cgroup v1 here.
package cgroup
