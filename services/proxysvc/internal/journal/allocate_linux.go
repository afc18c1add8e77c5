package journal

import (
	"errors"
	"os"
	"syscall"
)

// allocate gives a file its first blocks; errors.ErrUnsupported: its file system
// cannot.
func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		if errors.Is(err, syscall.EINTR) {
			continue // tmpfs gives up for any signal
		}
		if err != nil {
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}
