package lean

import (
	"syscall"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

const supported = true

// hasLeft says whether the other side has closed the connection, which is the
// next thing to be read from it. It takes nothing away.
func hasLeft(raw syscall.RawConn) bool {
	left := false
	err := raw.Control(func(fd uintptr) {
		var one [1]byte
		n, again, _ := sock.Peek(fd, one[:]) // a connection that has failed is left, too
		left = n == 0 && !again
	})
	return left && err == nil
}
