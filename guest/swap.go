package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sandrun/sandrun/internal/sys"
)

// Offsets in the first page of a swap area: union swap_header of
// include/linux/swap.h, as mkswap(8) writes it.
const (
	swapVersion  = 1024           // u32: 1
	swapLastPage = 1028           // u32: number of the last page
	swapMagicAt  = pageSize - 10  // ends the page
	swapMagic    = "SWAPSPACE2"   // pages of the kernel's own size
	swapMin      = 10 * pageSize  // bytes; what swapon(2) wants
	swapMax      = pageSize << 32 // bytes; page numbers are u32
	pageSize     = 4096
)

// makeSwap makes a sparse file of size bytes, in whole pages, that swapon(2)
// accepts. It costs disk only as far as the guest swaps.
func makeSwap(path string, size int64) (err error) {
	if size < swapMin || size > swapMax {
		return fmt.Errorf("guest swap of %d bytes: must be %d to %d", size, swapMin, int64(swapMax))
	}
	space, err := sys.SpaceOf(filepath.Dir(path))
	if err != nil {
		return err
	}
	if space.Free < size {
		return fmt.Errorf("guest swap of %s does not fit %s, which has %s free: make room, set TMPDIR to a larger file system, or ask for less swap",
			mib(size), filepath.Dir(path), mib(space.Free))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(swapHeader(size)); err != nil {
		return err
	}
	return f.Truncate(size / pageSize * pageSize)
}

func swapHeader(size int64) []byte {
	page := make([]byte, pageSize)
	binary.LittleEndian.PutUint32(page[swapVersion:], 1)
	binary.LittleEndian.PutUint32(page[swapLastPage:], uint32(size/pageSize-1))
	copy(page[swapMagicAt:], swapMagic)
	return page
}

// mib writes bytes for a message.
func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
