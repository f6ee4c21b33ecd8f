package guest

import (
	"encoding/json"
	"fmt"
	"os"
)

// factsPath marks a guest: only its process 1 writes this file, on a tmpfs.
const factsPath = "/run/sandrun/guest"

// Facts is what a process inside a guest can know of the machine and of the
// host around it.
type Facts struct {
	Kernel      string `json:"kernel"`        // release of the guest's kernel, as uname -r
	HostKernel  string `json:"host_kernel"`   // release of the host's kernel
	Memory      int64  `json:"memory"`        // bytes given to the guest
	Swap        int64  `json:"swap"`          // bytes of swap given to the guest
	Overlay     bool   `json:"overlay"`       // the root is a throw-away layer
	Network     string `json:"network"`       // a NetworkMode
	UID         int    `json:"uid"`           // effective user id on the host: whose rights the guest has
	GID         int    `json:"gid"`           // effective group id on the host
	Groups      []int  `json:"groups"`        // supplementary groups on the host
	CPU         int    `json:"cpu"`           // the host's processor that the guest is bound to, -1 if none
	MaxMapCount int    `json:"max_map_count"` // vm.max_map_count of the host: mappings a process may have
}

// Inside reports whether this process runs in a guest.
func Inside() bool {
	_, err := os.Stat(factsPath)
	return err == nil
}

// ReadFacts returns the facts of the guest that this process runs in, and an
// error that is fs.ErrNotExist outside of one.
func ReadFacts() (Facts, error) {
	var f Facts
	b, err := os.ReadFile(factsPath)
	if err != nil {
		return f, fmt.Errorf("this is no sandrun guest: %w", err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("%s: %w", factsPath, err)
	}
	return f, nil
}
