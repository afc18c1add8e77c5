package proxy

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestALoanEndsWithItsLastReader(t *testing.T) {
	t.Parallel()
	for _, spoils := range []bool{false, true} {
		var ends []bool
		l := NewLoan(func(spoiled bool) { ends = append(ends, spoiled) })
		l.Hold()
		l.Hold()
		l.Release()
		if spoils {
			l.Spoil()
		}
		l.Release()
		if len(ends) > 0 {
			t.Fatal("it ended before its last reader was done")
		}
		if l.Release(); len(ends) != 1 || ends[0] != spoils {
			t.Errorf("it ended as %v, want once, spoiled: %t", ends, spoils)
		}
	}
	var none *Loan // a body that stays its request's
	none.Hold()
	none.Release()
}

func TestALoanOfManyReadersEndsOnce(t *testing.T) {
	t.Parallel()
	var ended atomic.Int64
	l := NewLoan(func(bool) { ended.Add(1) })
	var readers sync.WaitGroup
	for range 100 {
		l.Hold()
		readers.Go(func() {
			l.Hold()
			l.Release()
			l.Release()
		})
	}
	l.Release()
	readers.Wait()
	if got := ended.Load(); got != 1 {
		t.Errorf("it ended %d times, want once", got)
	}
}
