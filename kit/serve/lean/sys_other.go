//go:build !linux

package lean

import "syscall"

const supported = false

func read(uintptr, []byte) (n int, again bool, err error) { return 0, false, syscall.ENOSYS }

func hasLeft(syscall.RawConn) bool { return false }
