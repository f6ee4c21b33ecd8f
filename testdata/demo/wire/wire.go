// Package wire writes and reads frames: a length, a checksum and the bytes.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxFrame is the most bytes that a frame may carry.
const MaxFrame = 16 << 20

// ErrChecksum is returned for a frame that was changed on its way.
var ErrChecksum = errors.New("wire: wrong checksum")

// Write writes one frame.
func Write(w io.Writer, data []byte) error {
	if len(data) > MaxFrame {
		return fmt.Errorf("wire: frame of %d bytes, at most %d", len(data), MaxFrame)
	}
	header := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	header = binary.BigEndian.AppendUint32(header, crc32.ChecksumIEEE(data))
	if _, err := w.Write(header); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// Read reads one frame. It returns io.EOF only between frames.
func Read(r io.Reader) ([]byte, error) {
	var header [8]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > MaxFrame {
		return nil, fmt.Errorf("wire: frame of %d bytes, at most %d", size, MaxFrame)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("wire: frame of %d bytes: %w", size, io.ErrUnexpectedEOF)
	}
	if crc32.ChecksumIEEE(data) != binary.BigEndian.Uint32(header[4:]) {
		return nil, ErrChecksum
	}
	return data, nil
}
