package lean

import (
	"errors"
	"syscall"
)

const supported = true

// hasLeft says whether the other side has closed the connection, which is the
// next thing to be read from it. It takes nothing away.
func hasLeft(raw syscall.RawConn) bool {
	left := false
	err := raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		left = n <= 0 && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	return left && err == nil
}
