//go:build linux && !race

package sock

import (
	"syscall"
	"unsafe"
)

// Read reads what is there, without waiting: again means that nothing is. No bytes and
// no error are the end.
func Read(fd uintptr, p []byte) (n int, again bool, err error) { return call(syscall.SYS_READ, fd, p) }

func write(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_WRITE, fd, p)
}

// call makes a system call that does not wait, of which the scheduler is not told.
func call(trap, fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))) //nolint:gosec // as package syscall does it
		switch errno {
		case 0:
			return int(n), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, errno
		}
	}
}
