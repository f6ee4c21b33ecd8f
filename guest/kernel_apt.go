package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	kernelPackage = "user-mode-linux"
	debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	aptTimeout    = 5 * time.Minute  // for one run of apt-get
	aptIdle       = 30 * time.Second // of a connection that brings nothing
	aptTail       = 2048             // bytes of what apt-get said, in an error
)

// An archive is a private view of a Debian archive: the machine's own apt settings
// say how to get there (proxy, certificates, credentials), and nothing else of
// them counts. All of its state is in dir; no root is needed.
type archive struct {
	dir, mirror, keyring, suite string
}

// aptUsable reports what is missing for any archive to be used.
func aptUsable(keyring string) error {
	for _, program := range []string{"apt-get", "apt-config", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: a kernel is fetched with apt; where there is none, set %s to the path of a User Mode Linux kernel", err, KernelEnv)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("keys to check Debian's signatures with: %w (install the package debian-archive-keyring, or give another file with --keyring)", err)
	}
	return nil
}

// findMirrors asks the machine's apt for the Debian mirrors that it uses, best first.
func findMirrors(ctx context.Context) ([]string, error) {
	// What was fetched from there says whose it is.
	out, err := runApt(ctx, "", nil, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	mirrors := fetchedMirrors(out)
	if len(mirrors) > 0 {
		return mirrors, nil
	}
	// Nothing was, as in a fresh container: take all, and the signatures will tell.
	if out, err = runApt(ctx, "", nil, "apt-get", "--print-uris", "update"); err != nil {
		return nil, err
	}
	if mirrors = namedMirrors(out); len(mirrors) == 0 {
		return nil, errors.New("the apt of this machine has no source: give an archive of Debian with --mirror URL")
	}
	return mirrors, nil
}

// fetchedMirrors reads lines of ORIGIN|LABEL|SITE, as of the index files that
// 'apt-get update' has fetched.
func fetchedMirrors(lines string) (mirrors []string) {
	for line := range strings.Lines(lines) {
		site, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|")
		if ok && site != "" && !slices.Contains(mirrors, site) {
			mirrors = append(mirrors, site)
		}
	}
	return mirrors
}

// namedMirrors reads what 'apt-get --print-uris update' prints: a quoted URL, a
// file name and a size on each line.
func namedMirrors(lines string) (mirrors []string) {
	for line := range strings.Lines(lines) {
		url, ok := strings.CutPrefix(line, "'")
		site, _, ok2 := strings.Cut(url, "/dists/")
		if ok && ok2 && site != "" && !slices.Contains(mirrors, site) {
			mirrors = append(mirrors, site)
		}
	}
	return mirrors
}

// open writes the private configuration.
func (a *archive) open(ctx context.Context) error {
	if strings.ContainsAny(a.mirror+a.suite+a.keyring, " \t\n[]\"") || a.mirror == "" || a.suite == "" {
		return fmt.Errorf("mirror %q, suite %q, keyring %q: neither empty nor with spaces, quotes or brackets", a.mirror, a.suite, a.keyring)
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "tmp"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o700); err != nil {
			return err
		}
	}
	transport, err := aptTransport(ctx)
	if err != nil {
		return err
	}
	source := fmt.Sprintf("deb [signed-by=%s arch=amd64] %s %s main\n", a.keyring, a.mirror, a.suite)
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(source), 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.config(), []byte(transport+a.settings()), 0o600)
}

func (a *archive) config() string { return filepath.Join(a.dir, "apt.conf") }

// settings replaces every setting of the machine that has a say in what is
// fetched, from where, whether it is trusted, and what runs afterwards.
func (a *archive) settings() string {
	var b strings.Builder
	for _, s := range [][2]string{
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", "/dev/null"},
		{"Dir::Etc::sourcelist", filepath.Join(a.dir, "sources.list")},
		{"Dir::Etc::sourceparts", "/dev/null"},
		{"Dir::Etc::preferences", "/dev/null"},
		{"Dir::Etc::preferencesparts", "/dev/null"},
		{"Dir::Etc::trusted", "/dev/null"},
		{"Dir::Etc::trustedparts", "/dev/null"},
		{"Dir::Log", filepath.Join(a.dir, "tmp")},
		{"Dir::State", a.dir},
		{"Dir::State::lists", filepath.Join(a.dir, "lists")},
		{"Dir::State::status", "/dev/null"},
		{"Dir::Cache", filepath.Join(a.dir, "cache")},
		{"APT::Architecture", "amd64"},
		{"APT::Architectures", "amd64"},
		{"APT::Sandbox::User", ""}, // our directory is for us alone, also where we are root
		{"APT::Get::AllowUnauthenticated", "false"},
		{"Acquire::AllowInsecureRepositories", "false"},
		{"Acquire::AllowWeakRepositories", "false"},
		{"Acquire::AllowDowngradeToInsecureRepositories", "false"},
		{"Acquire::Languages", "none"},
		{"Acquire::Retries", "1"},
		{"Acquire::http::Timeout", fmt.Sprint(int(aptIdle.Seconds()))},
		{"Acquire::https::Timeout", fmt.Sprint(int(aptIdle.Seconds()))},
	} {
		fmt.Fprintf(&b, "%s %q;\n", s[0], s[1])
	}
	return b.String()
}

// aptTransport is the part of the machine's apt configuration that says how to
// fetch: the Acquire tree, less what index files there are.
func aptTransport(ctx context.Context) (string, error) {
	out, err := runApt(ctx, "", nil, "apt-config", "dump")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Acquire::") && !strings.HasPrefix(line, "Acquire::IndexTargets") && !strings.HasPrefix(line, "Acquire::Languages") {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}

// fetch downloads the package into a.dir and returns its path: apt has checked
// the signature of the archive and, by the hashes that it covers, the package.
func (a *archive) fetch(ctx context.Context) (string, error) {
	if err := a.open(ctx); err != nil {
		return "", err
	}
	env := append(os.Environ(), "APT_CONFIG="+a.config(), "TMPDIR="+filepath.Join(a.dir, "tmp"), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	for _, args := range [][]string{
		{"-q", "--error-on=any", "update"},
		{"-q", "download", kernelPackage},
	} {
		if _, err := runApt(ctx, a.dir, env, "apt-get", args...); err != nil {
			return "", fmt.Errorf("%w: suite %s of %s: %w", ErrFetch, a.suite, a.mirror, err)
		}
	}
	found, err := filepath.Glob(filepath.Join(a.dir, kernelPackage+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%w: suite %s of %s: apt-get left %d files of %s, want 1", ErrFetch, a.suite, a.mirror, len(found), kernelPackage)
	}
	return found[0], nil
}

// runApt runs one of apt's programs and returns its output; an error carries the
// end of what it said. Its process group is killed when ctx is done, and it does
// not outlive this process.
func runApt(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, aptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &said), &said
	// The signal comes when this thread ends, not only when the process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.String(), nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	if text := strings.TrimSpace(said.String()); text != "" {
		err = fmt.Errorf("%w\n%s", err, text[max(0, len(text)-aptTail):])
	}
	return "", err
}
