package cgroup

import (
	"sync"

	"github.com/sandrun/sandrun/internal/sys"
)

// kmsg is the kernel log, a record to each read.
const kmsg = "/dev/kmsg"

// maxRecord is the longest record that the kernel gives (PRINTK_MESSAGE_MAX, 2048, and its keys).
const maxRecord = 8 << 10

// An OOMLog reads the kernel's own reports of out-of-memory kills. They hold what
// cannot be read from the cgroup files afterwards: how the memory was used at
// the moment of the kill. It is evidence on top: a verdict does not depend on
// it, since the kernel log may be closed to this user and loses records: its buffer
// may hold as few as three reports, so drain it at each kill.
type OOMLog struct {
	mu     sync.Mutex
	file   *sys.RecordFile
	parser *oomParser
	buf    []byte
}

// OpenOOMLog opens /dev/kmsg behind its last record. It needs CAP_SYSLOG where
// kernel.dmesg_restrict is 1.
func OpenOOMLog() (*OOMLog, error) {
	f, err := sys.OpenRecordFile(kmsg)
	if err != nil {
		return nil, &FileError{Op: "open", Path: kmsg, Err: err, Fix: "as root: sysctl kernel.dmesg_restrict=0; without it the memory split of a killed worker is sampled"}
	}
	return &OOMLog{file: f, parser: newOOMParser(), buf: make([]byte, maxRecord)}, nil
}

// Reports gives the reports since the last call. It does not wait. A log that can
// no longer be read gives no more of them.
func (o *OOMLog) Reports() []OOMReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.file != nil {
		n, lost, err := o.file.Next(o.buf)
		if lost {
			o.parser.lose()
		}
		if err != nil || n == 0 {
			break
		}
		o.parser.record(o.buf[:n])
	}
	return o.parser.drain()
}

// Close releases the kernel log.
func (o *OOMLog) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return nil
	}
	f := o.file
	o.file = nil
	return f.Close()
}
