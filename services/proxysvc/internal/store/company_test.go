package store

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledgertest"
)

// alone is a replica that writes nothing which nobody waits for, unless something else is
// written, for so long.
func alone(t *testing.T, db *pgxpool.Pool, company time.Duration) *replica {
	t.Helper()
	set := called("first", time.Minute)
	set.Heartbeat, set.Company = time.Hour, company
	w := startReplica(t, db, t.TempDir(), set)
	<-w.Ready()
	return w
}

// beginAs begins a request, streamed or not.
func (r *replica) beginAs(t *testing.T, stream bool) (*ledger.Ticket, ledger.Request) {
	t.Helper()
	of := request("k", "team")
	of.Stream = stream
	ticket := r.Begin(&ledger.Admission{Request: of, Hold: 100, Tokens: 10})
	if ticket == nil {
		t.Fatal("not begun")
	}
	return ticket, of
}

// openOf is how many of these requests are on the ledger as open ones.
func openOf(t *testing.T, db *pgxpool.Pool, of ...ledger.Request) (n int) {
	t.Helper()
	ids := make([]string, 0, len(of))
	for _, r := range of {
		ids = append(ids, r.RequestID)
	}
	if err := db.QueryRow(t.Context(), `select count(*) from spend.open_requests where request_id = any($1)`, ids).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestARequestThatEndsSoonIsOneRow has the writer do nothing else meanwhile.
func TestARequestThatEndsSoonIsOneRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	forbidOpen(t, db)
	w := alone(t, db, time.Hour)
	for _, stream := range []bool{false, true} {
		ticket, of := w.beginAs(t, stream)
		if err := ticket.Settle(t.Context(), settlement(of, 42)); err != nil {
			t.Fatal(err)
		}
		if rows := rowsOf(t, w.store, of, 1); len(rows) != 1 || rows[0].Cost != 42 || rows[0].Status != ledger.Completed {
			t.Errorf("rows %+v", rows)
		}
	}
	w.stop()
	auditClean(t, w.store)
}

// TestWhoWaitsForAnAdmissionIsNotKeptWaiting waits for one that waits for company.
func TestWhoWaitsForAnAdmissionIsNotKeptWaiting(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := alone(t, db, time.Hour)
	for _, stream := range []bool{false, true} {
		ticket, of := w.beginAs(t, stream)
		if err := ticket.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if openOf(t, db, of) != 1 {
			t.Error("it was admitted and is not on the ledger")
		}
		if err := ticket.Settle(t.Context(), settlement(of, 42)); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	auditClean(t, w.store)
}

// TestAStreamIsWrittenWithWhatElseIs and a request that is not streamed waits for its end.
func TestAStreamIsWrittenWithWhatElseIs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := alone(t, db, time.Hour)
	stream, streamed := w.beginAs(t, true)
	whole, plain := w.beginAs(t, false)
	other, of := admit(t, w.Writer, "other", 100)
	if openOf(t, db, streamed) != 1 || openOf(t, db, plain) != 0 {
		t.Errorf("%d streams and %d other requests are open, want the stream", openOf(t, db, streamed), openOf(t, db, plain))
	}
	for ticket, r := range map[*ledger.Ticket]ledger.Request{stream: streamed, whole: plain, other: of} {
		if err := ticket.Settle(t.Context(), settlement(r, 7)); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	if a := auditClean(t, w.store); a.Rows != 3 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestRequestsAreOnTheLedgerAfterAWhile though nobody waits for them, more than a batch.
func TestRequestsAreOnTheLedgerAfterAWhile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := alone(t, db, 30*time.Millisecond)
	var tickets []*ledger.Ticket
	var of []ledger.Request
	for range 250 {
		ticket, r := w.beginAs(t, false)
		tickets, of = append(tickets, ticket), append(of, r)
	}
	waitFor(t, func() []bool { return make([]bool, openOf(t, db, of...)/len(of)) })
	for i, ticket := range tickets {
		if err := ticket.Settle(t.Context(), settlement(of[i], 7)); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	if a := auditClean(t, w.store); a.Rows != 250 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestWhatWaitedForCompanyEndsWhilePostgresIsAway has it go away before anything of the
// request was written.
func TestWhatWaitedForCompanyEndsWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := alone(t, db, time.Hour)
	ticket, of := w.beginAs(t, false)
	w.cable.Cut.Store(true)
	if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 1}); err == nil {
		t.Error("admitted while Postgres is away")
	}
	if err := ticket.Settle(t.Context(), settlement(of, 42)); err != nil { // in the journal
		t.Fatal(err)
	}
	w.cable.Cut.Store(false)
	if rows := rowsOf(t, w.store, of, 1); len(rows) != 1 || rows[0].Cost != 42 {
		t.Errorf("rows %+v", rows)
	}
	w.stop()
	auditClean(t, w.store)
}

// noted notes how much each batch is.
type noted struct {
	ledger.Store
	sizes chan int
}

// Commit implements ledger.Store.
func (n noted) Commit(ctx context.Context, b *ledger.Batch) error {
	err := n.Store.Commit(ctx, b)
	if size := len(b.Admissions) + len(b.Settlements); size > 0 {
		n.sizes <- size
	}
	return err
}

// TestABusyWriterWaitsALittleForMore has requests come one by one behind a batch that was
// large: they are one batch. It waits long here, so that all have come for certain.
func TestABusyWriterWaitsALittleForMore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.Heartbeat, set.Company, set.Gather = time.Hour, time.Second, 3*time.Second
	sizes := make(chan int, 100)
	w := startReplicaOn(t, &ledgertest.Cable{Store: noted{New(db), sizes}}, New(db), t.TempDir(), set)
	<-w.Ready()
	const much = 40
	for range much {
		w.begin(t) // and nobody waits for it
	}
	if n := <-sizes; n != much {
		t.Fatalf("a batch of %d", n)
	}
	var wg sync.WaitGroup
	for range much {
		wg.Go(func() {
			if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := <-sizes; n != much {
		t.Errorf("a batch of %d, then %d more", n, len(sizes))
	}
	w.kill()
}

// TestAFewAreWrittenTogetherAgain has as many requests come one by one behind a batch of a
// few. Only when as many press are they written: the writer would wait for hours here.
func TestAFewAreWrittenTogetherAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.Heartbeat, set.Company, set.Gather = 3*time.Hour, time.Second, 2*time.Hour
	sizes := make(chan int, 100)
	w := startReplicaOn(t, &ledgertest.Cable{Store: noted{New(db), sizes}}, New(db), t.TempDir(), set)
	<-w.Ready()
	const few = 4
	var begun []*ledger.Ticket
	for range few {
		ticket, _ := w.begin(t) // and nobody waits for it yet
		begun = append(begun, ticket)
	}
	if n := <-sizes; n != few {
		t.Fatalf("a batch of %d", n)
	}
	for _, ticket := range begun { // told behind the counting of who is expected
		if err := ticket.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		var wg sync.WaitGroup
		for range few {
			wg.Go(func() {
				if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := <-sizes; n != few {
			t.Errorf("a batch of %d, then %d more", n, len(sizes))
		}
	}
	w.kill()
}
