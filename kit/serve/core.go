package serve

import (
	"fmt"
	"syscall"
)

// coreLimit is the size of a core file that a process may leave. It is below that
// of any, so none is written; and Linux takes 1, unlike 0, for a sign that none is
// to be piped to a collector either.
const coreLimit = 1

// NoCoreFiles has the process leave no core file however it ends, and neither do
// the processes that it starts: its memory is full of secrets. Main does so.
func NoCoreFiles() error {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit)
	if err == nil {
		// A hard limit of 0 cannot be raised by everybody.
		limit.Cur, limit.Max = min(limit.Max, coreLimit), min(limit.Max, coreLimit)
		err = syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
	}
	if err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
