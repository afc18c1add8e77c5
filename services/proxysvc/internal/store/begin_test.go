package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledgertest"
)

// begin begins a request that asks what its key has spent.
func (r *replica) begin(t *testing.T) (*ledger.Ticket, ledger.Request) {
	t.Helper()
	of := request("k", "team")
	ticket := r.Begin(&ledger.Admission{Request: of, Hold: 100, Tokens: 10, AskSpent: true})
	if ticket == nil {
		t.Fatal("not begun")
	}
	return ticket, of
}

// leave settles a request and does not wait.
func leave(t *testing.T, ticket *ledger.Ticket, s *ledger.Settlement) {
	t.Helper()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ticket.Settle(gone, s); !errors.Is(err, context.Canceled) {
		t.Fatalf("settled while the writer waits: %v", err)
	}
}

// forbidOpen has Postgres refuse requests in flight.
func forbidOpen(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `alter table spend.open_requests add check (false)`); err != nil {
		t.Fatal(err)
	}
}

// TestARequestThatEndsBeforeItsAdmissionIsWrittenIsOneRow has requests begin and end
// while the writer is busy: none is written as one in flight.
func TestARequestThatEndsBeforeItsAdmissionIsWrittenIsOneRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	forbidOpen(t, db)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	if err := New(db).EnsureAccounts(t.Context(), ofKey("k", budget(1000))); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		release := w.cable.Hold()
		ticket, of := w.begin(t)
		leave(t, ticket, settlement(of, 42))
		release()
		if err := ticket.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if spent := ticket.Standing.KeySpent; spent == nil || int(*spent) != 42*i {
			t.Errorf("the key has spent %v before", spent)
		}
		if rows := rowsOf(t, w.store, of, 1); len(rows) != 1 || rows[0].Cost != 42 || rows[0].Status != ledger.Completed {
			t.Errorf("rows %+v", rows)
		}
	}
	var requests, spent int
	if err := db.QueryRow(t.Context(), `select minute_requests, spent_nano_usd from spend.accounts where id = 'k'`).Scan(&requests, &spent); err != nil {
		t.Fatal(err)
	}
	if requests != 2 && requests != 1 || spent != 84 { // a minute may have ended between them
		t.Errorf("the shared row counts %d requests and %d", requests, spent)
	}
	w.kill()
	next := startReplica(t, db, dir, called("second", time.Minute))
	next.stop()
	if next.found != 0 {
		t.Errorf("found %d records of what is on the ledger", next.found)
	}
	auditClean(t, w.store)
}

// TestARequestThatEndedIsNotLostWithTheWriter has the journal of a replica found by
// another while the writer has not yet taken a request that has begun and ended.
func TestARequestThatEndedIsNotLostWithTheWriter(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	release := w.cable.Hold()
	ticket, of := w.begin(t)
	leave(t, ticket, settlement(of, 42))
	if err := w.journal.Close(); err != nil { // as a kill does
		t.Fatal(err)
	}
	next := startReplica(t, db, dir, called("second", 50*time.Millisecond))
	rows := rowsOf(t, w.store, of, 1)
	w.cable.Cut.Store(true)
	release()
	w.kill()
	next.stop()
	if len(rows) != 1 || rows[0].Status != ledger.Abandoned || !rows[0].Estimated || next.found != 1 {
		t.Errorf("rows %+v of %d records", rows, next.found)
	}
	if a := auditClean(t, w.store); a.Rows != 1 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestALateBatchOfADeadReplicaIsWrittenOnce has the last batch of a killed replica still
// on its way into Postgres when the next process finds the same requests in the
// journal: one that ended before it was admitted, and one that was let in while
// Postgres was away.
func TestALateBatchOfADeadReplicaIsWrittenOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	set := called("first", time.Minute)
	set.OutageAllowance, set.OutageWindow = 1000, time.Hour
	w := startReplica(t, db, dir, set)
	release := w.cable.Hold()
	ticket, ended := w.begin(t)
	leave(t, ticket, settlement(ended, 42))
	w.cable.Cut.Store(true)
	release()
	if err := ticket.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	letIn, lent := admit(t, w.Writer, "k", 100)
	if err := letIn.Settle(t.Context(), settlement(lent, 42)); err != nil {
		t.Fatal(err)
	}
	w.kill()
	comesLate(t, db, dir, "first", "second", ended, lent)
}

// TestALateBatchOfAReplayIsWrittenOnce kills the next process, too, while the batch in
// which it writes what the first left is on its way.
func TestALateBatchOfAReplayIsWrittenOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	release := w.cable.Hold()
	ticket, ended := w.begin(t)
	leave(t, ticket, settlement(ended, 42))
	w.cable.Cut.Store(true)
	release()
	if err := ticket.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	intended := request("k", "team")
	w.intend(t, "first", &ledger.Admission{Request: intended, Hold: 100, Tokens: 10})
	w.kill()
	exec(t, db, `update spend.logs set fenced_at = now(), settler = log_id, closed_at = now() where instance = 'first'`)
	cable := &ledgertest.Cable{Store: New(db)}
	cable.Cut.Store(true)
	next := startReplicaOn(t, cable, New(db), dir, called("second", time.Minute))
	notice(t, next.Writer) // its batch has failed
	next.kill()
	comesLate(t, db, dir, "second", "third", ended, intended)
}

// comesLate has the last batch of a killed replica, with rows of requests, come into
// Postgres after the next process has looked for them: they are on the ledger once.
func comesLate(t *testing.T, db *pgxpool.Pool, dir, from, by string, of ...ledger.Request) {
	t.Helper()
	late, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	batch := &ledger.Batch{FirstSeq: 1}
	for _, r := range of {
		batch.Settlements = append(batch.Settlements, settlement(r, 42))
	}
	if err := late.QueryRow(t.Context(), `select log_id from spend.logs where instance = $1`, from).Scan(&batch.LogID); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), `select spend.advance($1, batch + 1, $2) from spend.logs where log_id = $1`, batch.LogID, len(of)); err != nil {
		t.Fatal(err)
	}
	next := startReplica(t, db, dir, called(by, time.Millisecond))
	waitFor(t, func() []bool { // it has looked for dead replicas often enough
		var n int64
		if err := db.QueryRow(t.Context(), `select batch from spend.logs where instance = $1`, by).Scan(&n); err != nil || n < 5 {
			return nil
		}
		return []bool{true}
	})
	p := &pipeline{}
	queueSpend(p, batch)
	if err := p.send(t.Context(), late.Conn()); err != nil {
		t.Fatal(err)
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	next.stop() // when no stray is left
	for _, r := range of {
		if rows := rowsOf(t, next.store, r, 1); len(rows) != 1 || rows[0].LogID != batch.LogID || rows[0].Cost != 42 {
			t.Errorf("rows %+v", rows)
		}
	}
	auditClean(t, next.store)
}

// TestARequestThatEndsWhilePostgresIsAwayIsInTheJournal has the writer lose Postgres
// before it takes a request that has begun and ended.
func TestARequestThatEndsWhilePostgresIsAwayIsInTheJournal(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	release := w.cable.Hold()
	ticket, of := w.begin(t)
	leave(t, ticket, settlement(of, 42))
	w.cable.Cut.Store(true)
	release()
	if err := ticket.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.kill()
	next := startReplica(t, db, dir, called("second", 50*time.Millisecond))
	rows := rowsOf(t, w.store, of, 1)
	next.stop()
	if len(rows) != 1 || rows[0].Status != ledger.Completed || rows[0].Cost != 42 || next.found != 1 {
		t.Errorf("rows %+v of %d records", rows, next.found)
	}
	auditClean(t, w.store)
}

// TestWhatIsOnTheLedgerIsNoMatterOfTime waits for requests that were admitted long ago,
// as after a long thought of the upstream: neither the time for an admission, which is
// over, nor the end of an attempt makes them refused.
func TestWhatIsOnTheLedgerIsNoMatterOfTime(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := called("first", time.Minute)
	set.AdmitTimeout = time.Nanosecond
	w := startReplica(t, db, t.TempDir(), set)
	<-w.Ready()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var tickets []*ledger.Ticket
	for range 50 {
		ticket, _ := w.begin(t)
		tickets = append(tickets, ticket)
	}
	var begun int64
	batch := func() (n int64) {
		if err := db.QueryRow(t.Context(), `select batch from spend.logs where (select count(*) from spend.open_requests) = 50`).Scan(&n); err != nil {
			return 0
		}
		return n
	}
	waitFor(t, func() []bool { begun = batch(); return make([]bool, begun) })
	waitFor(t, func() []bool { return make([]bool, max(0, batch()-begun)) }) // the writer has told
	for i, ticket := range tickets {
		ctx := t.Context()
		if i%2 == 0 {
			ctx = over
		}
		if err := ticket.Wait(ctx); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	w.kill()
}

// TestProgressWaitsForCompany has progress come alone: it is written with the next
// admission, or after its delay.
func TestProgressWaitsForCompany(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"company": time.Hour, "delay": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			set := called("first", time.Minute)
			set.Heartbeat, set.Company = time.Hour, delay
			w := startReplica(t, db, t.TempDir(), set)
			ticket, of := admit(t, w.Writer, "k", 100)
			batches := func() (n, cost int64) {
				if err := db.QueryRow(t.Context(), `
					select l.batch, o.cost_nano_usd from spend.logs l, spend.open_requests o where o.request_id = $1`, of.RequestID).Scan(&n, &cost); err != nil {
					t.Fatal(err)
				}
				return n, cost
			}
			before, _ := batches()
			if name == "delay" {
				ticket.Progress(&ledger.Progress{MessageID: "msg_1", Cost: 1})
				waitFor(t, func() []bool {
					_, cost := batches()
					return make([]bool, cost)
				})
				w.kill()
				return
			}
			for i := range int64(20) {
				ticket.Progress(&ledger.Progress{MessageID: "msg_1", Cost: money.NanoUSD(i + 1)})
				admit(t, w.Writer, "other", 1)
				if n, cost := batches(); n != before+i+1 || cost != i+1 {
					t.Fatalf("%d batches for %d admissions, the request cost %d by then", n-before, i+1, cost)
				}
			}
			w.kill()
		})
	}
}

// TestARequestWhoseAdmissionFailsIsBookedWhenItEnds has Postgres refuse the admission
// of a request that has begun.
func TestARequestWhoseAdmissionFailsIsBookedWhenItEnds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	forbidOpen(t, db)
	w := startReplica(t, db, t.TempDir(), called("first", time.Minute))
	<-w.Ready()
	ticket, of := w.begin(t)
	if err := ticket.Wait(t.Context()); err == nil {
		t.Error("admitted")
	}
	if err := ticket.Settle(t.Context(), settlement(of, 42)); err != nil {
		t.Fatal(err)
	}
	if rows := rowsOf(t, w.store, of, 1); len(rows) != 1 || rows[0].Cost != 42 {
		t.Errorf("rows %+v", rows)
	}
	w.stop()
	auditClean(t, w.store)
}
