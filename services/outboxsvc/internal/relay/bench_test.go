package relay_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// BenchmarkATwoSecondSink posts a charge for each of 1,000 teams, of whom some, or
// all, are answered after two seconds. It tells when the last of the others was
// done, and how long all took.
func BenchmarkATwoSecondSink(b *testing.B) {
	for _, slow := range []int{0, 1, 30, 1000} {
		b.Run(fmt.Sprint(slow, "_slow_teams"), func(b *testing.B) {
			for b.Loop() {
				start := time.Now()
				var last atomic.Int64
				s := &sink{}
				s.answer = func(n int, c relay.Charge) relay.Answer {
					var team int
					if _, err := fmt.Sscanf(c.TeamID, "team%d", &team); err == nil && team < slow {
						<-time.After(2 * time.Second)
						return applied(n, c)
					}
					last.Store(int64(time.Since(start)))
					return applied(n, c)
				}
				st := newStand(s, 64)
				for i := range 1000 {
					st.book.Add(fmt.Sprint("c", i), fmt.Sprint("team", i), 2, money.Credit)
				}
				if p, err := st.Deliver(b.Context()); err != nil || p.Applied != 1000 {
					b.Fatalf("Deliver = %+v, %v", p, err)
				}
				b.ReportMetric(float64(last.Load())/1e6, "others-ms")
				b.ReportMetric(1000/time.Since(start).Seconds(), "posts/s")
			}
		})
	}
}
