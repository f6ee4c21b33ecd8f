package sys

import "golang.org/x/sys/unix"

// Sync writes every file system's cached changes out; sync(2).
func Sync() { unix.Sync() }

// PowerOff stops the machine at once, without a sync; reboot(2). It returns only
// when it failed.
func PowerOff() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// SetHostname sets the name of this machine; sethostname(2).
func SetHostname(name string) error { return unix.Sethostname([]byte(name)) }
