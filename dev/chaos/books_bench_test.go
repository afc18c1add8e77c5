package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
)

const benchTeams = 1000

// BenchmarkATwoSecondSink posts a charge for each of 1,000 teams, of whom some, or
// all, are answered by Autumn after two seconds: billing on Postgres, the outbox and
// Autumn's simulator. It tells when the last of the others was posted, and how long all
// took. Run it with -benchtime 1x.
func BenchmarkATwoSecondSink(b *testing.B) {
	s := newBooksStand(b, booksPlan{dedupe: "lock"})
	s.patience = 10 * time.Second
	s.restart(map[string]string{"OUTBOX_RATE": "1500", "OUTBOX_READ_RATE": "500"})
	s.clock.run()
	s.spendAll()
	for s.deliver(); s.open() > 0; s.deliver() { // each team's first charge is not what is measured
		s.clock.advance(10 * time.Second)
	}
	for _, slow := range []int{0, 1, 30, benchTeams} {
		b.Run(fmt.Sprint(slow, "_slow_teams"), func(b *testing.B) {
			var others, all time.Duration
			for b.Loop() {
				s.spendAll()
				var last atomic.Int64
				start := time.Now()
				hold := func(r *http.Request) {
					if r.URL.Path != "/v1/track" {
						return
					}
					if teamOf(b, r) < slow {
						<-time.After(2 * time.Second)
						return
					}
					last.Store(int64(time.Since(start)))
				}
				s.requests.hold.Store(&hold)
				if n := s.deliver(); n != benchTeams {
					b.Fatalf("%d charges were applied, want %d", n, benchTeams)
				}
				others, all = others+time.Duration(last.Load()), all+time.Since(start)
			}
			b.ReportMetric(float64(others.Milliseconds())/float64(b.N), "others-ms")
			b.ReportMetric(benchTeams*float64(b.N)/all.Seconds(), "posts/s")
		})
	}
}

// spendAll makes a charge of each team, by rows of the ledger.
func (s *booksStand) spendAll() {
	s.t.Helper()
	for n := range benchTeams {
		s.ledger.spend(fmt.Sprint("team", n), 1_000_000, s.clock.Now())
	}
	s.sync()
}

// deliver makes a pass and returns how many charges it proved to be applied.
func (s *booksStand) deliver() int64 {
	s.t.Helper()
	resp, err := s.outbox(0).DeliverNow(s.t.Context(), &outboxv1.DeliverNowRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetApplied()
}

// open counts charges that wait.
func (s *booksStand) open() int {
	s.t.Helper()
	resp, err := s.books().ListCharges(s.t.Context(), &billingv1.ListChargesRequest{State: billingv1.ChargeState_CHARGE_STATE_PENDING, PageSize: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(resp.GetCharges())
}

// teamOf reads the number of a track's team.
func teamOf(b *testing.B, r *http.Request) (n int) {
	b.Helper()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		b.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	var body struct {
		CustomerID string `json:"customer_id"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		b.Error(err)
	}
	if _, err := fmt.Sscanf(body.CustomerID, "team%d", &n); err != nil {
		b.Error(err)
	}
	return n
}
