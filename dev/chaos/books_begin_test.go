package chaos

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
)

// Teams whose customers are made slowly, more of them than the outbox has places,
// delay no charge of another: all creations hang until it is posted.
func TestTeamsThatBeginSlowlyDelayNoOther(t *testing.T) {
	t.Parallel()
	s := newBooksStand(t, booksPlan{seed: 1, dedupe: "lock", teams: 1})
	s.bill(1, "team0", 1_000_000_000)
	s.pass(false)
	s.patience = 5 * time.Second
	s.restart(map[string]string{"OUTBOX_CONCURRENCY": "4"})
	posted, once, gaveUp := make(chan struct{}), sync.Once{}, atomic.Int64{}
	hold := func(r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/track":
			once.Do(func() { close(posted) })
		case "POST /v1/customers":
			select {
			case <-posted:
			case <-time.After(s.patience):
				gaveUp.Add(1)
			}
		}
	}
	s.requests.hold.Store(&hold)
	for n := range 8 {
		s.bill(2+n, fmt.Sprint("begins", n), 1_000_000_000)
	}
	s.bill(100, "team0", 1_000_000_000)
	if _, err := s.outbox(0).DeliverNow(t.Context(), &outboxv1.DeliverNowRequest{}); err != nil {
		t.Fatal(err)
	}
	if gaveUp.Load() > 0 || s.sim.Applied()["team0"].Calls != 2 {
		t.Errorf("%d customers were given up on before team0 was charged (%+v)", gaveUp.Load(), s.sim.Applied()["team0"])
	}
	s.settle() // those that were put back have their turn
	for n := range 8 {
		if got := s.sim.Applied()[fmt.Sprint("begins", n)]; got.Calls != 1 {
			t.Errorf("begins%d was charged %d times, want once", n, got.Calls)
		}
	}
}
