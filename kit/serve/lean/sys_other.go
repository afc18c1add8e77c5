//go:build !linux

package lean

import "syscall"

const supported = false

func hasLeft(syscall.RawConn) bool { return false }
