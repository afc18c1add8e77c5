package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// ledger is a SpendLog in memory that gives small pages.
type ledger struct {
	mu     sync.Mutex
	page   int
	rows   map[int64][]billing.Row
	closed map[int64]bool
}

func newLedger(page int) *ledger {
	return &ledger{page: page, rows: map[int64][]billing.Row{}, closed: map[int64]bool{}}
}

// add appends a row to a log and returns it.
func (l *ledger) add(logID int64, team string, cost money.NanoUSD) billing.Row {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := int64(len(l.rows[logID]) + 1)
	r := billing.Row{
		LogID: logID, Seq: seq, RequestID: fmt.Sprintf("req_%d_%d", logID, seq), TeamID: team, UserID: "session_1",
		KeyID: "key_1", Model: "claude", Usage: billing.Usage{InputTokens: 10, OutputTokens: 5}, CostNanoUSD: cost, EndedAt: noon,
	}
	l.rows[logID] = append(l.rows[logID], r)
	return r
}

func (l *ledger) Logs(_ context.Context, after int64) ([]billing.Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := after + 1; id < 100; id++ { // one at a time: pages are pages
		if rows, ok := l.rows[id]; ok {
			return []billing.Log{{LogID: id, LastSeq: int64(len(rows)), Closed: l.closed[id]}}, nil
		}
	}
	return nil, nil
}

func (l *ledger) Read(_ context.Context, logID, after int64) (billing.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := l.rows[logID]
	end := min(after+int64(l.page), int64(len(rows)))
	p := billing.Page{LogID: logID, AfterSeq: after, LastSeq: int64(len(rows)), Closed: l.closed[logID]}
	if after < end {
		p.Rows = append(p.Rows, rows[after:end]...)
	}
	return p, nil
}

// bench is one store with a service on it.
type bench struct {
	t      testing.TB
	pool   *pgxpool.Pool
	ledger *ledger
	svc    *billing.Service
	opt    billing.Options
}

func newBench(t testing.TB, page int) *bench {
	t.Helper()
	pool := pgtest.New(t, store.Schema, store.Migrations)
	m, err := billing.ParseMarkup("3")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, pool: pool, ledger: newLedger(page), opt: billing.Options{
		Rules: billing.Rules{Markup: m}, TopUps: true,
		Reconcile: billing.ReconcileRules{Every: 24 * time.Hour, EveryShut: time.Minute, EveryDoubt: 5 * time.Minute, AlarmAbove: money.Credit},
	}}
	b.svc = b.replica()
	return b
}

// replica is another service on the same database and ledger.
func (b *bench) replica() *billing.Service {
	b.t.Helper()
	return b.over(b.ledger)
}

// over is a service on the same database and another ledger.
func (b *bench) over(l billing.SpendLog) *billing.Service {
	return billing.New(l, store.New(b.pool), b.opt)
}

func (b *bench) sync() billing.Result {
	b.t.Helper()
	r, err := b.svc.Sync(b.t.Context())
	if err != nil {
		b.t.Fatalf("Sync: %v", err)
	}
	return r
}

func (b *bench) balance(team string) billing.Balance {
	b.t.Helper()
	bal, err := b.svc.Balance(b.t.Context(), team)
	if err != nil {
		b.t.Fatalf("Balance: %v", err)
	}
	return bal
}

func (b *bench) lease(limit int) []billing.Lease {
	b.t.Helper()
	leases, err := b.svc.Lease(b.t.Context(), "worker", limit, time.Minute, false)
	if err != nil {
		b.t.Fatalf("Lease: %v", err)
	}
	return leases
}

// leaseOne leases the only charge that is due.
func (b *bench) leaseOne() billing.Lease {
	b.t.Helper()
	leases := b.lease(100)
	if len(leases) != 1 {
		b.t.Fatalf("Lease gave %d charges, want 1", len(leases))
	}
	return leases[0]
}

func (b *bench) settle(l billing.Lease, s billing.Settlement) billing.Charge {
	b.t.Helper()
	s.ChargeID, s.LeaseToken = l.Charge.ChargeID, l.Token
	c, err := b.svc.Settle(b.t.Context(), s)
	if err != nil {
		b.t.Fatalf("Settle: %v", err)
	}
	return c
}

func (b *bench) audit() billing.Audit {
	b.t.Helper()
	a, err := b.svc.Audit(b.t.Context(), true)
	if err != nil {
		b.t.Fatalf("Audit: %v", err)
	}
	return a
}

func (b *bench) sound() {
	b.t.Helper()
	for _, f := range b.audit().Faults {
		b.t.Errorf("audit: %s", f)
	}
}

func (b *bench) exec(sql string) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}
