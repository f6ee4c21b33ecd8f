package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandrun/sandrun/internal/sys"
)

const resolvConf = "/etc/resolv.conf"

// configurePasst sets up the guest's interface and its resolv.conf. It is for
// process 1, after /run is a tmpfs: the file that names the name server lies there
// and is bound over the host's, which is never written.
func configurePasst() error {
	if err := sys.SetAddress(passtInterface, passtAddress); err != nil {
		return err
	}
	if err := sys.LinkUp(passtInterface); err != nil {
		return err
	}
	if err := sys.SetDefaultRoute(passtGateway); err != nil {
		return err
	}
	return bindResolvConf(resolvConf, "/run/sandrun/resolv.conf")
}

// bindResolvConf makes the file at own, written here, stand in the place of system.
// Where there is no place for one the guest has no name server, as the host has none.
func bindResolvConf(system, own string) error {
	text, err := os.ReadFile(system)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target, err := filepath.EvalSymlinks(system)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A link into the host's /run, say: that is the guest's own tmpfs.
		if target, err = os.Readlink(system); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(system), target)
		}
		target = filepath.Clean(target) // "/run/../etc" is the host's
		if rest, ok := strings.CutPrefix(target, "/var/run/"); ok {
			target = "/run/" + rest
		}
		if !strings.HasPrefix(target, "/run/") {
			return nil
		}
		own = target
	case err != nil:
		return err
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(own, []byte(guestResolvConf(string(text))), 0o644); err != nil {
		return err
	}
	if own == target {
		return nil
	}
	return sys.BindMount(own, target)
}

// guestResolvConf is a resolv.conf(5) with the guest's name server in the place
// of the host's; search domains and options stay.
func guestResolvConf(host string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nameserver %v\n", passtDNS)
	for line := range strings.Lines(host) {
		if f := strings.Fields(line); len(f) > 0 && (f[0] == "search" || f[0] == "domain" || f[0] == "options") {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}
