package hungry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// chunk is how much is mapped or written at a time, bytes, and burstChunk how
// much in one call of burst: the kernel refuses single mappings larger than the
// memory it has.
const (
	chunk      = 1 << 20
	burstChunk = 256 << 20
)

// mapping maps size bytes of memory and keeps them.
func (p *program) mapping(size int64, flags int) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, flags|syscall.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes: %w", size, err)
	}
	p.kept = append(p.kept, b)
	return b, nil
}

// touch writes one byte of each page from the start to the end.
func touch(b []byte, value byte) {
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = value
	}
}

// take maps size bytes chunk by chunk and touches each before the next.
func (p *program) take(size int64, flags int) error {
	for size > 0 {
		n := min(size, chunk)
		b, err := p.mapping(n, flags)
		if err != nil {
			return err
		}
		touch(b, 1)
		size -= n
	}
	return nil
}

func anon(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	if err := p.take(size, syscall.MAP_PRIVATE); err != nil {
		return err
	}
	return p.keep()
}

func burst(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	for size > 0 {
		n := min(size, burstChunk)
		if _, err := p.mapping(n, syscall.MAP_PRIVATE|syscall.MAP_POPULATE); err != nil {
			return err
		}
		size -= n
	}
	return p.keep()
}

func heap(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1) // a collection would touch the pages out of order
	for size > 0 {
		b := make([]byte, min(size, chunk))
		touch(b, 1)
		p.kept = append(p.kept, b)
		size -= chunk
	}
	return p.keep()
}

func leak(p *program, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%w: want STEP EVERY SIZE, got %q", errUsage, args)
	}
	step, err := parseSize(args[0])
	if err != nil {
		return err
	}
	every, err := parseTime(args[1])
	if err != nil {
		return err
	}
	size, err := parseSize(args[2])
	if err != nil {
		return err
	}
	for taken := int64(0); taken < size; taken += step {
		if err := p.take(step, syscall.MAP_PRIVATE); err != nil {
			return err
		}
		time.Sleep(every)
	}
	return p.keep()
}

func thp(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	b, err := p.mapping(size, syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	// EINVAL: a kernel without huge pages. Small ones take as much.
	if err := syscall.Madvise(b, syscall.MADV_HUGEPAGE); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("madvise MADV_HUGEPAGE: %w", err)
	}
	touch(b, 1)
	return p.keep()
}

func mlock(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	for size > 0 {
		n := min(size, chunk)
		b, err := p.mapping(n, syscall.MAP_PRIVATE)
		if err != nil {
			return err
		}
		if err := syscall.Mlock(b); err != nil {
			return fmt.Errorf("mlock: %w (RLIMIT_MEMLOCK holds without CAP_IPC_LOCK)", err)
		}
		size -= n
	}
	return p.keep()
}

func swap(p *program, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: want SIZE ROUNDS, got %q", errUsage, args)
	}
	size, err := parseSize(args[0])
	if err != nil {
		return err
	}
	rounds, err := parseCount(args[1])
	if err != nil {
		return err
	}
	b, err := p.mapping(size, syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := range rounds {
		touch(b, byte(i+1))
	}
	return p.keep()
}

func shared(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	b, err := p.mapping(size, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	touch(b, 1)
	return p.keep()
}

// fill writes size bytes to the file.
func fill(f *os.File, size int64) error {
	b := make([]byte, chunk)
	touch(b, 1)
	for size > 0 {
		n, err := f.Write(b[:min(size, chunk)])
		if err != nil {
			return refused(err)
		}
		size -= int64(n)
	}
	return nil
}

func memfd(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	fd, err := sys.MemfdCreate("hungry")
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:hungry")
	p.kept = append(p.kept, f)
	if err := fill(f, size); err != nil {
		return err
	}
	return p.keep()
}

func tmpfs(p *program, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: want DIR SIZE, got %q", errUsage, args)
	}
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	// Files of 16 chunks, each without a name as soon as it is open: whatever ends
	// this process also frees them.
	for size > 0 {
		f, err := os.CreateTemp(args[0], "hungry-")
		if err != nil {
			return refused(err)
		}
		p.kept = append(p.kept, f)
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		n := min(size, 16*chunk)
		if err := fill(f, n); err != nil {
			return err
		}
		size -= n
	}
	return p.keep()
}

func shm(p *program, args []string) error {
	return tmpfs(p, append([]string{"/dev/shm"}, args...))
}

func pipes(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	b := make([]byte, chunk)
	touch(b, 1)
	for size > 0 {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
			return refused(err)
		}
		if _, err := sys.SetPipeSize(fds[1], chunk); err != nil && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("fcntl F_SETPIPE_SZ: %w", err)
		}
		n, err := pour(fds[1], b)
		if err != nil {
			return err
		}
		size -= n
	}
	return p.keep()
}

func sockets(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for size > 0 {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			return refused(err)
		}
		n, err := pour(fds[0], b)
		if err != nil {
			return err
		}
		size -= n
	}
	return p.keep()
}

// pour writes b to a non-blocking descriptor until it is full, and says how much went in.
func pour(fd int, b []byte) (int64, error) {
	var sum int64
	for {
		n, err := syscall.Write(fd, b)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			if sum == 0 {
				return 0, refused(err)
			}
			return sum, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return sum, refused(err)
		}
		sum += int64(n)
	}
}

// cache reads files and directories again and again until size bytes were read.
// The files stay open, because hostfs drops a file's pages when it is closed.
func cache(p *program, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%w: want SIZE PATH..., got %q", errUsage, args)
	}
	size, err := parseSize(args[0])
	if err != nil {
		return err
	}
	var read int64
	b := make([]byte, chunk)
	done := errors.New("read enough")
	for read < size {
		before := read
		for _, root := range args[1:] {
			root, err := filepath.EvalSymlinks(root)
			if err != nil {
				return err
			}
			err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				f, err := os.Open(path)
				if err != nil {
					return err
				}
				p.kept = append(p.kept, f)
				for {
					n, err := f.Read(b)
					read += int64(n)
					if read >= size {
						return done
					}
					if errors.Is(err, io.EOF) {
						return nil
					}
					if err != nil {
						return err
					}
				}
			})
			if err != nil && !errors.Is(err, done) {
				return err
			}
			if read >= size {
				break
			}
		}
		if read == before {
			return fmt.Errorf("nothing to read in %q", args[1:])
		}
	}
	return p.keep()
}

func enomem(p *program, args []string) error {
	size, err := oneSize(args)
	if err != nil {
		return err
	}
	// The address space counts, not the pages: a Go program reserves a lot of it.
	used, err := addressSpace()
	if err != nil {
		return err
	}
	limit := uint64(used + size/2)
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("setrlimit RLIMIT_AS %d: %w", limit, err)
	}
	b, err := p.mapping(size, syscall.MAP_PRIVATE)
	if err != nil {
		return refused(err)
	}
	touch(b, 1)
	return p.keep()
}

// addressSpace is the present size of this process, bytes, from /proc/self/statm.
func addressSpace() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var pages int64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		return 0, fmt.Errorf("read /proc/self/statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// refused tells memory that was refused (ENOMEM, ENOSPC) and tasks that were
// refused (EAGAIN) apart from other errors, by the exit status.
func refused(err error) error {
	switch {
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOSPC):
		fmt.Fprintf(os.Stderr, "hungry: %v\n", err)
		return exitCode(ExitNoMem)
	case errors.Is(err, syscall.EAGAIN):
		fmt.Fprintf(os.Stderr, "hungry: %v\n", err)
		return exitCode(ExitRefused)
	}
	return err
}
