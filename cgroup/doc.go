// Package cgroup gives each worker of a run a cgroup v2 leaf with hard caps.
package cgroup
