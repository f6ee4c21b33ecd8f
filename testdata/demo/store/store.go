// Package store keeps values by key in one file that is only ever appended to.
package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A Store is an open file of records.
type Store struct {
	file   *os.File
	out    *bufio.Writer
	values map[string]string
}

type record struct{ Key, Value string }

// Open reads the file at path, which it makes if there is none. A last record
// that was only half written is dropped.
func Open(path string) (_ *Store, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	s := &Store{file: f, out: bufio.NewWriter(f), values: make(map[string]string)}
	in := bufio.NewReader(f)
	var whole int64
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s at byte %d: %w", path, whole, err)
		}
		s.values[r.Key] = r.Value
		whole += int64(len(line))
	}
	if err := f.Truncate(whole); err != nil {
		return nil, err
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return nil, err
	}
	return s, nil
}

// Get returns the value of key, "" if there is none.
func (s *Store) Get(key string) string { return s.values[key] }

// Put sets the value of key. It is in the file after Close.
func (s *Store) Put(key, value string) error {
	b, err := json.Marshal(record{key, value})
	if err != nil {
		return err
	}
	if _, err := s.out.Write(append(b, '\n')); err != nil {
		return err
	}
	s.values[key] = value
	return nil
}

// Close writes what is left and closes the file.
func (s *Store) Close() error {
	return errors.Join(s.out.Flush(), s.file.Close())
}
