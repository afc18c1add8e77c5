package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

// freezer stops a replica just before it writes its events, as a process that is
// frozen would stop.
type freezer struct{ reached, thaw chan struct{} }

func (f *freezer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.Contains(d.SQL, "insert into billing.billing_events") {
		close(f.reached)
		<-f.thaw
	}
	return ctx
}

func (f *freezer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A replica that is frozen in the middle of a page loses it to another one, and
// writes nothing when it thaws.
func TestAFrozenReaderIsTakenOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	for range 5 {
		b.ledger.add(1, "acme", 10)
	}
	f := &freezer{make(chan struct{}), make(chan struct{})}
	cfg := b.pool.Config().Copy()
	cfg.ConnConfig.Tracer = f
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := store.New(pool)
	s.Stall = 200 * time.Millisecond
	frozen := billing.New(b.ledger, s, b.opt)
	ended := make(chan error, 1)
	go func() { _, err := frozen.Sync(t.Context()); ended <- err }()
	<-f.reached
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var r billing.Result
	for r.Rows == 0 {
		if r, err = b.svc.Sync(ctx); err != nil {
			t.Fatalf("Sync: %v", err)
		}
	}
	close(f.thaw)
	if err := <-ended; err == nil {
		t.Error("the frozen replica noticed nothing")
	}
	if got := b.balance("acme"); got.BilledNanoUSD != 150 || r.Rows != 5 {
		t.Errorf("balance = %+v after %+v, want 150 billed once", got, r)
	}
	b.sound()
}
