package store

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// called are settings of a process with a name of its own.
func called(name string, silence time.Duration) ledger.Settings {
	set := settings
	set.Instance, set.Silence = name, silence
	return set
}

// intend holds an admission in the journal, as before its request is sent.
func (r *replica) intend(t *testing.T, name string, a *ledger.Admission) {
	t.Helper()
	if _, ok := r.journal.Hold(ledger.Record{By: name, Intended: a}); !ok {
		t.Fatal("not held")
	}
}

// TestARequestThatWasOnlyIntendedSurvivesAKill kills a replica after a request went
// to its upstream and before its admission was asked for.
func TestARequestThatWasOnlyIntendedSurvivesAKill(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	<-w.Ready()
	r := request("k", "team")
	w.intend(t, "first", &ledger.Admission{Request: r, Hold: 100, Tokens: 10})
	w.kill()
	for _, name := range []string{"second", "third"} { // the third finds nothing to do
		next := startReplica(t, db, dir, called(name, 50*time.Millisecond))
		rows := rowsOf(t, w.store, r, 1)
		if len(rows) != 1 || rows[0].Status != ledger.Abandoned || rows[0].Cost != 0 || !rows[0].Estimated {
			t.Errorf("rows %+v", rows)
		}
		next.stop()
		if want := map[string]int{"second": 1}[name]; next.found != want {
			t.Errorf("%s found %d records, want %d", name, next.found, want)
		}
	}
	if a := auditClean(t, w.store); a.Rows != 1 || a.Held != 0 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestAnIntentChangesNothingOfWhatIsKnown kills a replica after the admission was
// committed and before the intent was dropped: the request is settled once, by what
// was seen of it.
func TestAnIntentChangesNothingOfWhatIsKnown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"still open", "settled by itself", "settled by another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			dir := t.TempDir()
			w := startReplica(t, db, dir, called("first", time.Minute))
			r := request("k", "team")
			a := &ledger.Admission{Request: r, Hold: 100, Tokens: 10}
			w.intend(t, "first", a)
			ticket, err := w.Admit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			want, cost := ledger.Abandoned, int64(21)
			if name == "settled by itself" {
				want, cost = ledger.Completed, 42
				if err := ticket.Settle(t.Context(), settlement(r, 42)); err != nil {
					t.Fatal(err)
				}
			} else {
				ticket.Progress(&ledger.Progress{MessageID: "msg_1", Cost: 21})
				other, _ := admit(t, w.Writer, "other", 1) // then the progress is written
				if err := other.Settle(t.Context(), settlement(request("other", "team"), 0)); err != nil {
					t.Fatal(err)
				}
			}
			w.kill()
			if name == "settled by another" {
				other := startReplica(t, db, t.TempDir(), called("other", 50*time.Millisecond))
				rowsOf(t, w.store, r, 1)
				other.stop()
			}
			next := startReplica(t, db, dir, called("second", 50*time.Millisecond))
			rowsOf(t, w.store, r, 1)
			next.stop() // when no stray is left
			rows, err := next.store.Rows(t.Context(), ledger.Filter{KeyID: "k", Limit: 10})
			if err != nil || len(rows) != 1 || rows[0].Status != want || int64(rows[0].Cost) != cost {
				t.Errorf("rows %+v, %v", rows, err)
			}
		})
	}
}

// TestAnIntentWaitsForTheLastBatchOfItsProcess has a killed replica's admission
// still on its way into Postgres when the next process looks: it must not take the
// request for unknown.
func TestAnIntentWaitsForTheLastBatchOfItsProcess(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, called("first", time.Minute))
	<-w.Ready()
	r := request("k", "team")
	w.intend(t, "first", &ledger.Admission{Request: r, Hold: 100, Tokens: 10})
	w.kill()
	late, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), `select spend.advance(log_id, batch + 1, 0) from spend.logs where instance = 'first'`); err != nil {
		t.Fatal(err)
	}
	var logID int64
	if err := late.QueryRow(t.Context(), `select log_id from spend.logs where instance = 'first'`).Scan(&logID); err != nil {
		t.Fatal(err)
	}
	next := startReplica(t, db, dir, called("second", time.Millisecond))
	waitFor(t, func() []bool { // it has looked for dead replicas often enough
		var batch int64
		if err := db.QueryRow(t.Context(), `select batch from spend.logs where instance = 'second'`).Scan(&batch); err != nil || batch < 5 {
			return nil
		}
		return []bool{true}
	})
	p := &pipeline{}
	queueOpen(p, &ledger.Batch{LogID: logID}, []*ledger.Admission{{Request: r, Hold: 100, Tokens: 10}})
	if err := p.send(t.Context(), late.Conn()); err != nil {
		t.Fatal(err)
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	rowsOf(t, w.store, r, 1)
	next.stop()
	if a := auditClean(t, w.store); a.Rows != 1 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}
