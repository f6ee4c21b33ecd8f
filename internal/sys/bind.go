package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// BindMount makes a file or directory appear at a second place; mount(2), MS_BIND.
func BindMount(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	return nil
}
