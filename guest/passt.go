package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// The guest's network. Its one interface speaks Ethernet to passt, a program that
// opens an ordinary socket of the host for each connection the guest makes: no
// privilege, no interface and no route of the host is needed, and what the user
// may reach the guest may reach. Addresses are fixed, for nobody else sees them;
// their block (RFC 7335) is for links between two and never that of a real network.
//
// The host's own loopback is at the gateway's address; DNS goes to the host's
// first name server, wherever that is. There is no IPv6.
const (
	passtInterface  = "vec0"
	passtMAC        = "52:54:00:12:34:56" // of the guest
	passtGatewayMAC = "52:54:00:12:34:57"
)

var (
	passtAddress = netip.MustParsePrefix("192.0.0.2/29")
	passtGateway = netip.MustParseAddr("192.0.0.1")
	passtDNS     = netip.MustParseAddr("192.0.0.3")
)

const (
	passtProgram = "passt"
	passtTimeout = 5 * time.Second // to answer the first frame; 10 ms is usual
	frameMax     = 1 << 16         // bytes of an Ethernet frame that passt sends or takes
	frameBuffer  = 1 << 20         // bytes on their way in one direction
)

// HavePasst reports whether the program behind NetworkPasst is installed.
func HavePasst() bool {
	_, err := exec.LookPath(passtProgram)
	return err == nil
}

// passt is a running passt and the bridge between it and a guest's kernel: passt
// has each frame preceded by its length on a stream, the kernel has a packet a
// frame.
type passt struct {
	kernel *os.File // the kernel's end; the caller closes it once the kernel has it

	cmd     *exec.Cmd
	frames  *os.File // the other end of kernel
	stream  *os.File // to passt
	log     bytes.Buffer
	ready   chan struct{} // closed by the first frame from passt
	ended   chan struct{} // closed when passt has ended
	end     error         // how, once ended is closed
	bridges sync.WaitGroup
}

// startPasst starts passt; Ready says whether it works, and Close must follow.
// When this process dies, passt's end of the stream closes and it ends too.
func startPasst() (p *passt, err error) {
	program, err := exec.LookPath(passtProgram)
	if err != nil {
		return nil, fmt.Errorf("network of the guest: %w (install Debian's package passt)", err)
	}
	p = &passt{ready: make(chan struct{}), ended: make(chan struct{})}
	defer func(made *passt) { // a failure returns nil as p
		if err != nil {
			closeAll(made.kernel, made.frames, made.stream)
		}
	}(p)
	if p.kernel, p.frames, err = sys.SocketPair(sys.SocketSeqPacket, frameBuffer); err != nil {
		return nil, fmt.Errorf("network of the guest: %w", err)
	}
	var theirs *os.File
	if theirs, p.stream, err = sys.SocketPair(sys.SocketStream, frameBuffer); err != nil {
		return nil, fmt.Errorf("network of the guest: %w", err)
	}
	defer closeAll(theirs)

	p.cmd = exec.Command(program, "--foreground", "--stderr", "--quiet", "--fd", "3", "--ipv4-only",
		// What passt would otherwise copy from the host's interface, and a host may be without one.
		"--interface", "lo", "--mac-addr", passtGatewayMAC,
		"--address", passtAddress.Addr().String(), "--netmask", fmt.Sprint(passtAddress.Bits()),
		"--gateway", passtGateway.String(), "--dns-forward", passtDNS.String(),
		"--tcp-ports", "none", "--udp-ports", "none")
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the command, which may need the network to the end
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("network of the guest: %w", err)
	}
	go func() {
		if p.end = p.cmd.Wait(); p.end == nil {
			p.end = errors.New("exit status 0")
		}
		close(p.ended)
	}()
	p.bridges.Go(p.fromKernel)
	p.bridges.Go(p.toKernel)
	return p, nil
}

// kernelArgument is what makes the kernel use the descriptor fd, which is p.kernel, as its network.
func (p *passt) kernelArgument(fd int) string {
	return fmt.Sprintf("%s:transport=fd,fd=%d,mac=%s", passtInterface, fd, passtMAC)
}

// Ready waits until passt has answered a first frame, for a bounded time.
func (p *passt) Ready(ctx context.Context) error {
	timeout := time.NewTimer(passtTimeout)
	defer timeout.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.ended:
		return fmt.Errorf("network of the guest: passt ended: %w: %s", p.end, p.message())
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("network of the guest: passt has not answered within %v", passtTimeout)
	}
}

// message is what passt said, less its complaints of a missing system log.
func (p *passt) message() string {
	var said []string
	for line := range strings.Lines(p.log.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Failed to send") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "it said nothing"
	}
	return strings.Join(said, "; ")
}

// Close ends passt and the bridge.
func (p *passt) Close() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.ended
	closeAll(p.frames, p.stream, p.kernel)
	p.bridges.Wait()
	return err
}

// closeAll closes files that are only a means: nothing is lost if that fails.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// fromKernel first asks passt who has the gateway's address, which shows that it
// works, and then passes on what the kernel sends.
func (p *passt) fromKernel() {
	buf := make([]byte, 4+frameMax)
	n := copy(buf[4:], whoHas(passtGateway))
	for {
		binary.BigEndian.PutUint32(buf, uint32(n))
		if _, err := p.stream.Write(buf[:4+n]); err != nil {
			return
		}
		var err error
		if n, err = p.frames.Read(buf[4:]); err != nil {
			return
		}
	}
}

func (p *passt) toKernel() {
	r := bufio.NewReaderSize(p.stream, 4*frameMax)
	var size [4]byte
	buf := make([]byte, frameMax)
	for first := true; ; first = false {
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > frameMax {
			return // the stream is out of step: nothing after this can be right
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return
		}
		if first { // the answer to our own question
			close(p.ready)
			continue
		}
		if _, err := p.frames.Write(buf[:n]); err != nil {
			return
		}
	}
}

// whoHas is the Ethernet frame by which the guest asks for the owner of an IPv4
// address; RFC 826.
func whoHas(address netip.Addr) []byte {
	mac, err := net.ParseMAC(passtMAC)
	if err != nil {
		panic(err) // a constant
	}
	own, target := passtAddress.Addr().As4(), address.As4()
	frame := bytes.Repeat([]byte{0xff}, 6)                                // to everyone
	frame = append(append(frame, mac...), 0x08, 0x06)                     // ARP
	frame = append(frame, 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01) // a request for an Ethernet address by an IPv4 one
	frame = append(append(append(frame, mac...), own[:]...), make([]byte, 6)...)
	return append(frame, target[:]...)
}
