package rpc

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
)

// TestACallerThatTakesNothingHoldsNothingUp stops a request whose caller takes nothing:
// it has stopGrace, and no more.
func TestACallerThatTakesNothingHoldsNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		s := newSink(func(*httpbody.HttpBody) error {
			<-over
			return nil
		})
		wrote := make(chan error, 1)
		go func() { wrote <- s.Write([]byte("x")) }()
		synctest.Wait()
		stopped := time.Now()
		s.Stop()
		s.Stop() // as often as one likes
		if err := <-wrote; !errors.Is(err, errTakesNothing) || time.Since(stopped) != stopGrace {
			t.Errorf("the write ended with %v after %s, want %v after %s", err, time.Since(stopped), errTakesNothing, stopGrace)
		}
		close(over)
	})
}
