//go:build linux && !race && (amd64 || arm64)

package sock

import (
	"syscall"
	"unsafe"
)

// The calls are those of sockets: read and write come to the same through the kernel's
// layer of files, at a tenth more.

// Read reads what is there, without waiting: again means that nothing is. No bytes and
// no error are the end.
func Read(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// Peek is Read that takes nothing away.
func Peek(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
}

func write(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// call makes a system call that does not wait, of which the scheduler is not told.
func call(trap, fd uintptr, p []byte, flags uintptr) (n int, again bool, err error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0) //nolint:gosec // as package syscall does it
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
