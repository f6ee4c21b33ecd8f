package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// The guest's serial lines, by number: what carries what.
const (
	lineControl  = 0 // messages, a line of JSON each, both ways
	lineTerminal = 1 // what the pseudo-terminal shows, to the host
	lineStdout   = 2 // to the host
	lineStderr   = 3 // to the host
)

// shareEnv is on the kernel's command line and so in the environment of process
// 1: the host directory that holds the spec and, later, pieces of stdin.
const shareEnv = "SANDRUN_GUEST"

// specFile is the spec's name in the share.
const specFile = "spec.json"

// chunkFile names the n-th piece of stdin in the share. Serial lines carry 3 MB/s
// into the guest; files that both sides see carry a hundred times that.
func chunkFile(n int) string { return fmt.Sprintf("in.%d", n) }

// chunkCredits is how many pieces the host may write ahead of the guest.
const chunkCredits = 8

// A stream is one of the command's standard streams.
type stream int

const (
	stdin stream = iota
	stdout
	stderr
)

func (s stream) String() string { return [...]string{"stdin", "stdout", "stderr"}[s] }

// How a standard stream is made inside.
const (
	asNull     = "null"     // the null device
	asPipe     = "pipe"     // a pipe of its own
	asStdout   = "stdout"   // of stderr: the same as stdout
	asTerminal = "terminal" // the one pseudo-terminal
)

// An octets is a string of a system call. In JSON it is base64: it need not be
// UTF-8, and JSON would replace what is not.
type octets string

func (o octets) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(o)) }

func (o *octets) UnmarshalJSON(text []byte) error {
	var b []byte
	err := json.Unmarshal(text, &b)
	*o = octets(b)
	return err
}

// An octetList is a list of such strings.
type octetList []string

func (l octetList) MarshalJSON() ([]byte, error) {
	b := make([][]byte, len(l))
	for i, s := range l {
		b[i] = []byte(s)
	}
	return json.Marshal(b)
}

func (l *octetList) UnmarshalJSON(text []byte) error {
	var b [][]byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	*l = make(octetList, len(b))
	for i, s := range b {
		(*l)[i] = string(s)
	}
	return nil
}

// A spec is what process 1 has to do.
type spec struct {
	Args     octetList    `json:"args"`
	Env      octetList    `json:"env"`
	Dir      octets       `json:"dir"`
	Streams  [3]string    `json:"streams"` // by stream
	Termios  *sys.Termios `json:"termios,omitempty"`
	Winsize  *sys.Winsize `json:"winsize,omitempty"`
	Hostname string       `json:"hostname"`
	Swap     bool         `json:"swap"`    // swap on /dev/ubda
	Overlay  octets       `json:"overlay"` // the overlay module's path; "" runs on the host's own files
	Network  NetworkMode  `json:"network"`
	Facts    Facts        `json:"facts"` // without what only the guest knows
}

// A message is one line on the control line. One field is set.
type message struct {
	// From the host.
	Signal  int          `json:"signal,omitempty"`  // for the command's process
	Winsize *sys.Winsize `json:"winsize,omitempty"` // the terminal's new size
	EOF     bool         `json:"eof,omitempty"`     // no more pieces of stdin
	Closed  stream       `json:"closed,omitempty"`  // nobody reads stdout or stderr any more
	Off     bool         `json:"off,omitempty"`     // end the command and power off
	Ack     bool         `json:"ack,omitempty"`     // all output has arrived: power off

	// From the guest.
	Hello       bool    `json:"hello,omitempty"`        // process 1 runs
	Started     bool    `json:"started,omitempty"`      // the command runs; the spec is no longer needed
	Fail        string  `json:"fail,omitempty"`         // process 1 cannot go on, and why
	Stopped     bool    `json:"stopped,omitempty"`      // the command was stopped, as by ^Z
	StdinClosed bool    `json:"stdin_closed,omitempty"` // nobody reads stdin any more
	Exit        *ending `json:"exit,omitempty"`

	// Both: piece n of stdin is complete (host), was consumed (guest).
	Chunk int `json:"chunk,omitempty"`
}

// An ending says how the command ended and how many bytes were on each line.
type ending struct {
	Code     int    `json:"code"`
	Reason   string `json:"reason,omitempty"`
	Stdin    int64  `json:"stdin"` // bytes that the command took from its stdin
	Stdout   int64  `json:"stdout"`
	Stderr   int64  `json:"stderr"`
	Terminal int64  `json:"terminal"`
}

// A link sends and receives messages.
type link struct {
	r *bufio.Reader

	mu   sync.Mutex
	w    *os.File
	held *bytes.Buffer // what waits for the peer; nil when it listens
}

func newLink(r io.Reader, w *os.File) *link { return &link{r: bufio.NewReader(r), w: w} }

// hold keeps what is sent from now on until open. A guest must have made its line
// raw before the first byte.
func (l *link) hold() { l.held = new(bytes.Buffer) }

// open sends what was held.
func (l *link) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.held.Bytes()
	l.held = nil
	return l.write(held)
}

func (l *link) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The command may write to the line, too: an end of what it began comes first.
	b = append(append([]byte{'\n'}, b...), '\n')
	if l.held != nil {
		_, err = l.held.Write(b)
		return err
	}
	return l.write(b)
}

// sendTimeout bounds how long a message may wait for a peer that does not read.
const sendTimeout = 10 * time.Second

func (l *link) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// A serial line has no deadline; its other end always reads.
	_ = l.w.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err := l.w.Write(b)
	return err
}

// receive returns the next message and passes over lines that nobody of ours wrote.
func (l *link) receive() (message, error) {
	for {
		b, err := l.r.ReadBytes('\n')
		if err != nil {
			return message{}, err
		}
		var m message
		if json.Unmarshal(b, &m) == nil {
			return m, nil
		}
	}
}
