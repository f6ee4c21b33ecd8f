package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needPasst skips where the product says that there is no passt.
func needPasst(t *testing.T) {
	t.Helper()
	if HavePasst() {
		return
	}
	if os.Getenv("SANDRUN_TEST_MUST_WORK") == "1" {
		t.Fatal("passt is not installed")
	}
	t.Skip("passt is not installed")
}

// passt answers, and it ends when nobody holds the other end of its stream, as
// after a kill of this process.
func TestPasstEndsAlone(t *testing.T) {
	needPasst(t)
	p, err := startPasst()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.stream.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Error("passt lives on without its stream")
	}
}

// A passt that fails is an error with what it said, not a wait.
func TestPasstFails(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, passtProgram)
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'Failed to send 9 bytes to syslog' >&2\necho no such luck >&2\nexit 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	p, err := startPasst()
	if err != nil {
		t.Fatal(err)
	}
	err = p.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "exit status 3") || strings.Contains(err.Error(), "syslog") {
		t.Errorf("%v, want what passt said and its status", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(program, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := startPasst(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want that it cannot be executed", err)
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := startPasst(); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("%v, want an error with the way out", err)
	}
}

// passtEnv makes this test binary, in a guest, a client of the address it names.
const passtEnv = "SANDRUN_TEST_PASST"

const passtBytes = 8 << 20

// A command in the guest reaches a server on the host, both ways and unharmed, has
// the guest's name server in its resolv.conf, and the host's file stays as it is.
func TestPasst(t *testing.T) {
	if address := os.Getenv(passtEnv); address != "" {
		passtClient(t, address)
		return
	}
	needPasst(t)
	kernel, modules, err := DefaultStore().Kernel()
	if err != nil {
		if os.Getenv("SANDRUN_TEST_MUST_WORK") == "1" || !errors.Is(err, ErrNoKernel) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	before, err := os.ReadFile(resolvConf)
	if err != nil {
		t.Fatal(err)
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	served := make(chan error, 1)
	go func() { served <- echo(server) }()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = output.Close() }()
	m := &Machine{
		Kernel: kernel, Modules: modules, Init: self,
		Args:   []string{self, "-test.run", "^TestPasst$", "-test.v"},
		Env:    []string{fmt.Sprintf("%s=%v:%d", passtEnv, passtGateway, server.Addr().(*net.TCPAddr).Port)},
		Dir:    "/",
		Stdout: output, Stderr: output,
		Memory: 512 << 20, Overlay: true, Network: NetworkPasst,
		Timeout: time.Minute, RunDir: t.TempDir(),
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = m.Wait()
	text, readErr := os.ReadFile(output.Name())
	if err != nil || readErr != nil || !bytes.Contains(text, []byte("--- PASS: TestPasst")) {
		t.Fatalf("in the guest: %v, %v\n%s\n%s", err, readErr, text, m.Console())
	}
	t.Logf("in the guest:\n%s", text)
	if err := <-served; err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(resolvConf)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("%s of the host was %q, is %q (%v)", resolvConf, before, after, err)
	}
}

// echo sends passtBytes back to its one client. The client does not say by a half
// closed connection that it has sent them all: passt of 2023 repeats data on one.
func echo(server net.Listener) error {
	c, err := server.Accept()
	if err != nil {
		return err
	}
	_, err = io.CopyN(struct{ io.Writer }{c}, c, passtBytes) // not by splice(2), whose pipes the runtime keeps
	return errors.Join(err, c.Close())
}

func passtClient(t *testing.T, address string) {
	text, err := os.ReadFile(resolvConf)
	if err != nil || !strings.HasPrefix(string(text), fmt.Sprintf("nameserver %v\n", passtDNS)) {
		t.Errorf("%s is %q (%v)", resolvConf, text, err)
	}
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("a line to the host and back to me\n"), passtBytes/32+1)[:passtBytes]
	start := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("%d bytes came back, then: %v", len(got), err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, not the %d that were sent", len(got), len(want))
	}
	t.Logf("%d bytes there and back in %v", len(got), time.Since(start))
}

func TestBindResolvConf(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	for name, link := range map[string]string{
		"nowhere": filepath.Join(dir, "run/resolv.conf"), // not the guest's own /run
		"missing": "",
	} {
		system := filepath.Join(dir, name)
		if link != "" {
			if err := os.Symlink(link, system); err != nil {
				t.Fatal(err)
			}
		}
		if err := bindResolvConf(system, own); err != nil {
			t.Errorf("%s: %v, want a guest without a name server", name, err)
		}
		for _, path := range []string{own, link} {
			if _, err := os.Stat(path); path != "" && err == nil {
				t.Errorf("%s: %s was written", name, path)
			}
		}
	}
}

func TestGuestResolvConf(t *testing.T) {
	host := "# made by hand\nnameserver 127.0.0.53\nnameserver 2001:db8::1\nsearch example.com corp\noptions edns0\tndots:2\nsortlist 10.0.0.0"
	want := "nameserver 192.0.0.3\nsearch example.com corp\noptions edns0\tndots:2\n"
	if got := guestResolvConf(host); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := guestResolvConf("search a"); got != "nameserver 192.0.0.3\nsearch a\n" {
		t.Errorf("%q", got)
	}
}
