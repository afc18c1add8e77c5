package sweep

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// work answers each call with the next number, or an error for -1, and then
// with zero.
type work struct {
	began           time.Time
	expire, prune   []int
	expired, pruned []time.Duration // when it was called
}

func (w *work) next(answers *[]int, at *[]time.Duration) (int, error) {
	*at = append(*at, time.Since(w.began))
	if len(*answers) == 0 {
		return 0, nil
	}
	n := (*answers)[0]
	*answers = (*answers)[1:]
	if n < 0 {
		return 0, errors.New("database is down")
	}
	return n, nil
}

func (w *work) Expire(context.Context, int) (int, error) { return w.next(&w.expire, &w.expired) }

func (w *work) Prune(context.Context, key.Retention, int) (int, error) {
	return w.next(&w.prune, &w.pruned)
}

func TestTheSweeperTakesAllThatIsDueAndGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &work{began: time.Now(), expire: []int{expireAtOnce, 3, -1, 2}, prune: []int{pruneAtOnce, pruneAtOnce, 1}}
		s := New(w, Options{Expiry: time.Second, Prune: time.Hour, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		want := [][]time.Duration{{0, 0, time.Second, 2 * time.Second}, {0, 0, 0}}
		if diff := cmp.Diff(want, [][]time.Duration{w.expired, w.pruned}); diff != "" {
			t.Errorf("calls of Expire and Prune (-want +got):\n%s", diff)
		}
		got := []float64{testutil.ToFloat64(s.expired), testutil.ToFloat64(s.pruned), testutil.ToFloat64(s.failed.WithLabelValues("expire"))}
		if diff := cmp.Diff([]float64{expireAtOnce + 5, 2*pruneAtOnce + 1, 1}, got); diff != "" {
			t.Errorf("expired, pruned, failed (-want +got):\n%s", diff)
		}
	})
}
