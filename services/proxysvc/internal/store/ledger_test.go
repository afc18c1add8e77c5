package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// observer collects what writers report, for failing tests to show.
type observer struct{ t *testing.T }

func (o observer) Committed(int, int, time.Duration) {}
func (o observer) Trouble(what string, err error)    { o.t.Logf("%s: %s", what, cause(err)) }

var settings = ledger.Settings{
	Instance: "test", Heartbeat: 20 * time.Millisecond, Silence: time.Minute, BudgetSlice: 50 * time.Millisecond,
	Gather: time.Millisecond, Retry: 5 * time.Millisecond, AdmitTimeout: 20 * time.Second,
}

// startWriter runs a writer and returns it with a function that ends it as a
// clean shutdown does.
func startWriter(t *testing.T, db *pgxpool.Pool, set ledger.Settings) (*ledger.Writer, func()) {
	t.Helper()
	return startWriterOn(t, New(db), set)
}

func startWriterOn(t *testing.T, to ledger.Store, set ledger.Settings) (*ledger.Writer, func()) {
	t.Helper()
	w := ledger.NewWriter(to, nil, nil, set, observer{t})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.WithoutCancel(t.Context())) }()
	return w, sync.OnceFunc(func() {
		w.Stop()
		if err := <-ended; err != nil {
			t.Errorf("writer: %v", err)
		}
	})
}

var counter atomic.Int64

func request(key, team string) ledger.Request {
	return ledger.Request{
		RequestID: fmt.Sprintf("req_%06d", counter.Add(1)), KeyID: key, Token: "t", TeamID: team, UserID: "session",
		ModelGroup: "m", Model: "m", ModelID: "d", PriceVersion: "1", StartedAt: time.Now(), Tags: []string{"a\x00b"}, UserAgent: "x\x00\xff",
	}
}

func budget(n money.NanoUSD) ledger.Limits {
	return ledger.Limits{Budgets: []ledger.Budget{{Limit: n}}}
}

func ofKey(id string, l ledger.Limits) []ledger.Claim {
	return []ledger.Claim{{Account: ledger.AccountID{Kind: ledger.KindKey, ID: id}, Who: "key", Limits: l}}
}

// ofTeam is nothing where there are no limits, as for a real key.
func ofTeam(id string, l ledger.Limits) []ledger.Claim {
	if !l.Any() {
		return nil
	}
	return []ledger.Claim{{Account: ledger.AccountID{Kind: ledger.KindTeam, ID: id}, Who: "team", Limits: l}}
}

func settlement(r ledger.Request, cost money.NanoUSD) *ledger.Settlement {
	return &ledger.Settlement{
		Request: r, Cost: cost, Status: ledger.Completed, EndedAt: time.Now(),
		Usage: pricing.Usage{InputTokens: 1, OutputTokens: 2},
	}
}

// spend has a request admitted and settled, at a cost of 7.
func spend(t *testing.T, w *ledger.Writer, a *ledger.Admission) {
	t.Helper()
	ticket, err := w.Admit(t.Context(), a)
	if err == nil {
		err = ticket.Settle(t.Context(), settlement(a.Request, 7))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// auditClean audits the ledger as it is, and with all of its rows in the totals.
func auditClean(t *testing.T, s *Store) ledger.Audit {
	t.Helper()
	before := audit(t, s)
	if _, err := s.Count(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	after := audit(t, s)
	if !slices.Equal(before.Teams, after.Teams) {
		t.Errorf("teams %+v, before they were counted %+v", after.Teams, before.Teams)
	}
	return before
}

func audit(t *testing.T, s *Store) ledger.Audit {
	t.Helper()
	a, err := s.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Faults {
		t.Errorf("audit: %s", f)
	}
	return a
}

func TestARequestIsOpenThenOnTheLedgerOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	r := request("k", "team")
	ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 100})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := s.Summary(t.Context(), ledger.AccountID{Kind: ledger.KindTeam, ID: "team"})
	if err != nil || sum.Held != 100 || sum.OpenRequests != 1 {
		t.Errorf("while open: %+v, %v, want 100 held for 1", sum, err)
	}
	if err := ticket.Settle(t.Context(), settlement(r, 42)); err != nil {
		t.Fatal(err)
	}
	a := auditClean(t, s)
	if a.Rows != 1 || a.Cost != 42 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v, want one row of 42 and nothing open", a)
	}
	rows, err := s.Rows(t.Context(), ledger.Filter{RequestID: r.RequestID, Limit: 2})
	if err != nil || len(rows) != 1 || rows[0].Seq != 1 || !slices.Equal(rows[0].Tags, []string{"ab"}) {
		t.Errorf("Rows = %+v, %v", rows, err)
	}
}

// TestAHardBudgetHoldsOverReplicas lets two replicas admit for one key at once:
// spent + held never exceeds the budget, and afterwards the sums agree.
func TestAHardBudgetHoldsOverReplicas(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	limit := money.NanoUSD(1000)
	var wg sync.WaitGroup
	var admitted, held, final atomic.Int64
	var stops []func()
	for range 2 {
		w, stop := startWriter(t, db, settings)
		stops = append(stops, stop)
		for range 8 {
			wg.Go(func() {
				for range 25 {
					r := request("k", "team")
					ticket, err := w.Admit(t.Context(), &ledger.Admission{
						Request: r, Hold: 30, Claims: ofKey("k", budget(limit)),
					})
					if refusal, ok := errors.AsType[*ledger.Refusal](err); ok {
						if refusal.Final {
							final.Add(1)
						} else {
							held.Add(1)
						}
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					admitted.Add(1)
					if err := ticket.Settle(t.Context(), settlement(r, 30)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, stop := range stops {
		stop()
	}
	a := auditClean(t, s)
	if a.Cost > limit || a.Cost != 30*money.NanoUSD(admitted.Load()) || admitted.Load() != 33 {
		t.Errorf("spent %d of %d with %d admitted, want 33 × 30", a.Cost, limit, admitted.Load())
	}
	if a.OpenRequests != 0 || final.Load() == 0 {
		t.Errorf("%d open, %d refused for good", a.OpenRequests, final.Load())
	}
	logs, err := s.Logs(t.Context(), 0, 10)
	if err != nil || len(logs) != 2 || !logs[0].Closed || !logs[1].Closed {
		t.Errorf("logs = %+v, %v, want two closed ones", logs, err)
	}
}

func TestALimitThatComesLaterCountsWhatWasSpentAndHeldBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	defer stop()
	admit := func(hold money.NanoUSD, l ledger.Limits) (*ledger.Ticket, ledger.Request, error) {
		r := request("k", "team")
		ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: hold, Claims: ofTeam("team", l)})
		return ticket, r, err
	}
	ticket, r, err := admit(10, ledger.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ticket.Settle(t.Context(), settlement(r, 60)); err != nil {
		t.Fatal(err)
	}
	if ticket, r, err = admit(30, ledger.Limits{}); err != nil {
		t.Fatal(err)
	}
	limit := money.NanoUSD(100)
	if _, _, err := admit(11, budget(limit)); err == nil {
		t.Error("11 were admitted beside 60 spent and 30 held of 100")
	}
	if err := ticket.Settle(t.Context(), settlement(r, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := admit(40, budget(limit)); err != nil {
		t.Errorf("40 beside 60 spent of 100: %v", err)
	}
	auditClean(t, New(db))
}

// TestADeadReplicasRequestsAreSettledOnce ends a replica without a word: the
// other settles what it had open from its progress, and the dead one, come back
// to life, posts the difference to what was really used.
func TestADeadReplicasRequestsAreSettledOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	frozen := settings
	frozen.Heartbeat = time.Hour // a process that is frozen shows no life
	dead, stopDead := startWriter(t, db, frozen)
	r := request("k", "team")
	ticket, err := dead.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 100})
	if err != nil {
		t.Fatal(err)
	}
	ticket.Progress(&ledger.Progress{MessageID: "msg_1", Usage: pricing.Usage{InputTokens: 7}, Cost: 21})
	other := request("k", "team") // the second batch carries the progress
	otherTicket, err := dead.Admit(t.Context(), &ledger.Admission{Request: other, Hold: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := otherTicket.Settle(t.Context(), settlement(other, 1)); err != nil {
		t.Fatal(err)
	}
	quick := settings
	quick.Silence = time.Millisecond
	_, stop := startWriter(t, db, quick)
	rows := waitFor(t, func() []ledger.Row {
		rows, err := s.Rows(t.Context(), ledger.Filter{RequestID: r.RequestID, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	})
	if got := rows[0]; got.Status != ledger.Abandoned || !got.Estimated || got.Cost != 21 || got.MessageID != "msg_1" {
		t.Errorf("settled as %+v", got)
	}
	stop()
	if err := ticket.Settle(t.Context(), settlement(r, 99)); err != nil {
		t.Errorf("the thawed replica's settlement: %v", err)
	}
	later := request("k", "team")
	laterTicket, err := dead.Admit(t.Context(), &ledger.Admission{Request: later, Hold: 1})
	if err != nil {
		t.Fatalf("the thawed replica admits again: %v", err)
	}
	if err := laterTicket.Settle(t.Context(), settlement(later, 5)); err != nil {
		t.Fatal(err)
	}
	stopDead()
	if a := auditClean(t, s); a.Rows != 4 || a.Cost != 99+1+5 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v, want four rows of 105", a)
	}
	rows, err = s.Rows(t.Context(), ledger.Filter{RequestID: r.RequestID + ".adj1", Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Status != ledger.Adjusted || rows[0].Adjusts != r.RequestID || rows[0].Cost != 99-21 || rows[0].Usage.InputTokens != 1-7 {
		t.Errorf("the correction: %+v, %v", rows, err)
	}
}

// TestNothingIsLostOrDoubledWhenConnectionsBreak kills database sessions while
// requests run.
func TestNothingIsLostOrDoubledWhenConnectionsBreak(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	var settled, cost atomic.Int64
	var wg sync.WaitGroup
	limit := money.USD
	running := make(chan struct{})
	for g := range 8 {
		wg.Go(func() {
			for range 60 {
				a := &ledger.Admission{Request: request(fmt.Sprint("k", g), "team"), Hold: 10}
				if g%2 == 0 {
					a.Claims = ofKey(a.KeyID, budget(limit))
				}
				ticket, err := w.Admit(t.Context(), a)
				if err != nil {
					continue // refused while the database was away
				}
				if err := ticket.Settle(t.Context(), settlement(a.Request, 3)); err != nil {
					t.Error(err)
				}
				settled.Add(1)
				cost.Add(3)
			}
		})
	}
	go func() { wg.Wait(); close(running) }()
	kills := 0
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-running:
			done = true
		case <-tick.C:
			var n int
			err := db.QueryRow(context.WithoutCancel(t.Context()), `select count(pg_terminate_backend(pid)) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid()`).Scan(&n)
			if err == nil {
				kills += n
			}
		}
	}
	stop()
	a := auditClean(t, s)
	if a.OpenRequests != 0 || kills == 0 || settled.Load() == 0 {
		t.Errorf("%d open after %d kills and %d settlements", a.OpenRequests, kills, settled.Load())
	}
	rows, err := s.Rows(t.Context(), ledger.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	completed := int64(0)
	for _, r := range rows {
		if r.Status == ledger.Completed {
			completed++
		}
	}
	if completed != settled.Load() || int64(a.Cost) != cost.Load() {
		t.Errorf("ledger has %d rows of %d, want %d of %d (after %d kills)", completed, a.Cost, settled.Load(), cost.Load(), kills)
	}
	t.Logf("%d sessions killed, %d requests settled", kills, settled.Load())
}

// lossy commits for certain and loses every second answer.
type lossy struct {
	*Store
	calls int // only the writer's goroutine counts
}

func (l *lossy) Commit(ctx context.Context, b *ledger.Batch) error {
	err := l.Store.Commit(ctx, b)
	if l.calls++; err == nil && l.calls%2 == 0 {
		return fault.Wrap(fault.Unavailable, io.ErrUnexpectedEOF, "the answer was lost")
	}
	return err
}

// TestALostAnswerIsNoLostCommit loses answers of commits that took place:
// admissions and refusals are still told as they were decided, and nothing is
// written twice.
func TestALostAnswerIsNoLostCommit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w := ledger.NewWriter(&lossy{Store: s}, nil, nil, settings, observer{t})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.WithoutCancel(t.Context())) }()
	limit := money.NanoUSD(100)
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				r := request("k", "team")
				ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 10, Claims: ofKey(r.KeyID, budget(limit))})
				if _, ok := errors.AsType[*ledger.Refusal](err); ok {
					refused.Add(1)
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				admitted.Add(1)
				if err := ticket.Settle(t.Context(), settlement(r, 10)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	a := auditClean(t, s)
	if a.Rows != admitted.Load() || a.Rows != 10 || a.Cost != limit || a.OpenRequests != 0 || refused.Load() != 70 {
		t.Errorf("%d admitted, %d refused, audit %+v; want 10 of 10 each and 70 refused", admitted.Load(), refused.Load(), a)
	}
}

func TestAnItemThatPostgresRefusesFailsAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	exec(t, db, `alter table spend.spend_logs add check (status <> 'nonsense')`)
	w, stop := startWriter(t, db, settings)
	defer stop()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r := request("k", "team")
			ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 1})
			if err != nil {
				t.Error(err)
				return
			}
			row := settlement(r, 1)
			if i == 7 {
				row.Status = "nonsense"
			}
			if err := ticket.Settle(t.Context(), row); (err != nil) != (i == 7) {
				t.Errorf("settlement %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if a := auditClean(t, New(db)); a.Rows != 19 || a.OpenRequests != 1 {
		t.Errorf("audit = %+v, want 19 rows and the refused one open", a)
	}
}

func TestTheAuditSeesEveryKindOfDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a missing row":     `delete from spend.spend_logs where seq = 1`,
		"a changed cost":    `update spend.spend_logs set cost_nano_usd = cost_nano_usd + 1 where seq = 1`,
		"a changed total":   `update spend.account_totals set cost_nano_usd = cost_nano_usd + 1 where kind = 'user'`,
		"a changed account": `update spend.accounts set spent_nano_usd = spent_nano_usd + 1`,
		"a leaked hold":     `update spend.accounts set held_nano_usd = held_nano_usd + 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			s := New(db)
			w, stop := startWriter(t, db, settings)
			defer stop()
			for range 2 {
				spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 1, Claims: ofKey("k", budget(money.USD))})
			}
			auditClean(t, s)
			if _, err := db.Exec(t.Context(), damage); err != nil {
				t.Fatal(err)
			}
			if a, err := s.Audit(t.Context()); err != nil || len(a.Faults) == 0 {
				t.Errorf("Audit = %+v, %v, want a fault", a, err)
			}
		})
	}
}
