//go:build race || !linux || !(amd64 || arm64)

// The race detector takes package syscall's word for what happens before what.

package sock

import (
	"errors"
	"syscall"
)

// Read reads what is there, without waiting: again means that nothing is. No bytes and
// no error are the end.
func Read(fd uintptr, p []byte) (n int, again bool, err error) { return call(syscall.Read, fd, p) }

// Peek is Read that takes nothing away.
func Peek(fd uintptr, p []byte) (n int, again bool, err error) {
	return call(func(fd int, p []byte) (int, error) {
		n, _, err := syscall.Recvfrom(fd, p, syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
		return n, err
	}, fd, p)
}

func write(fd uintptr, p []byte) (n int, again bool, err error) { return call(syscall.Write, fd, p) }

func call(do func(fd int, p []byte) (int, error), fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = do(int(fd), p)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, true, nil
		default:
			return max(n, 0), false, err
		}
	}
}
