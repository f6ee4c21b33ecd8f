package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMakeSwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swap")
	const size = 64<<20 + 1000 // not whole pages
	if err := makeSwap(path, size); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != 64<<20 || st.Mode() != 0o600 {
		t.Errorf("%d bytes, mode %v", st.Size(), st.Mode())
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 64<<10 {
		t.Errorf("%d bytes of disk for an empty swap file", used)
	}
	// util-linux has the second opinion, where it is installed.
	if out, err := exec.Command("/sbin/swaplabel", path).CombinedOutput(); err != nil && !os.IsNotExist(err) {
		t.Errorf("swaplabel: %v: %s", err, out)
	}
	for _, bad := range []int64{0, -1, swapMin - 1, swapMax + 1, 1 << 62} {
		if err := makeSwap(path+"-bad", bad); err == nil {
			t.Errorf("a swap of %d bytes: no error", bad)
		}
	}
}
