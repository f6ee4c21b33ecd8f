// Package sandbox is where a worker runs: the shim by which it comes in and the
// protocol it speaks with the supervisor.
//
// Importing this package puts the shim (shim.c) into the binary, as a constructor
// that runs before the Go runtime.
package sandbox

// #cgo CFLAGS: -O2 -Wall -Wextra -Werror
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// SocketEnv names the supervisor's socket in the environment of a run's command.
const SocketEnv = "SANDRUN_SOCK"

// RequestMax is the largest request, in bytes; the shim cuts argv to fit.
const RequestMax = 64 << 10

// A Request is the one packet that a shim sends, on a SOCK_SEQPACKET unix socket:
// fields that each end in NUL: the protocol's version ("1"), kind, label, working
// directory, then argv. Its pid is not in it: the kernel says that (SO_PEERCRED).
type Request struct {
	Kind  string   // the name it was called by: "worker" or an adapter's link
	Label string   // given by the user; "" when not
	Dir   string   // working directory of the worker
	Argv  []string // perhaps without its last elements
}

// ParseRequest decodes a packet.
func ParseRequest(packet []byte) (Request, error) {
	if len(packet) == 0 || packet[len(packet)-1] != 0 {
		return Request{}, errors.New("request does not end in NUL")
	}
	fields := bytes.Split(packet[:len(packet)-1], []byte{0})
	if version := string(fields[0]); version != "1" {
		return Request{}, fmt.Errorf("request of protocol version %q, this supervisor speaks 1", version)
	}
	if len(fields) < 5 {
		return Request{}, fmt.Errorf("request of %d fields, want a command", len(fields))
	}
	r := Request{Kind: string(fields[1]), Label: string(fields[2]), Dir: string(fields[3])}
	for _, f := range fields[4:] {
		r.Argv = append(r.Argv, string(f))
	}
	return r, nil
}

// Go is the reply that lets a worker start: it is in its leaf. The shim raises its
// oom_score_adj to score and puts extra behind argv[0]. If the program cannot be
// executed, the shim answers with errno (a C int, host order) before it exits.
func Go(score int, extra []string) []byte {
	b := append([]byte{'G'}, strconv.Itoa(score)...)
	b = append(b, 0)
	for _, a := range extra {
		b = append(append(b, a...), 0)
	}
	return b
}

// Pass is the reply to what is no worker: it runs where it is.
func Pass() []byte { return []byte{'P'} }

// Refuse is the reply that ends the shim with an exit code and a line on stderr.
func Refuse(code byte, text string) []byte { return append([]byte{'E', code}, text...) }
