package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledgertest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// replica is a writer with a journal, and a cable to cut.
type replica struct {
	*ledger.Writer
	store   *Store
	cable   *ledgertest.Cable
	journal *journal.Journal[ledger.Record]
	found   int // records of processes before
	kill    func()
	stop    func()
}

func startReplica(t *testing.T, db *pgxpool.Pool, dir string, set ledger.Settings) *replica {
	t.Helper()
	return startReplicaOn(t, &ledgertest.Cable{Store: New(db)}, New(db), dir, set)
}

func startReplicaOn(t *testing.T, cable *ledgertest.Cable, store *Store, dir string, set ledger.Settings) *replica {
	t.Helper()
	j, found, err := journal.Open[ledger.Record](dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{store: store, cable: cable, journal: j, found: len(found)}
	r.Writer = ledger.NewWriter(r.cable, j, found, set, observer{t})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	end := sync.OnceValue(func() error {
		err := <-ended
		return errors.Join(err, j.Close())
	})
	r.kill = func() { // the log stays open, the journal's file stays
		cancel()
		if err := end(); err != nil {
			t.Logf("killed: %v", err)
		}
	}
	r.stop = func() {
		r.Stop()
		if err := end(); err != nil {
			t.Errorf("writer: %v", err)
		}
		cancel()
	}
	return r
}

// fall cuts the cable and waits until the writer knows.
func (r *replica) fall(t *testing.T) {
	t.Helper()
	r.cable.Cut.Store(true)
	notice(t, r.Writer)
}

// notice waits until a writer has noticed that Postgres is away: then it refuses
// at once. The admission that finds out is uncertain until Postgres is back.
func notice(t *testing.T, w *ledger.Writer) {
	t.Helper()
	waitFor(t, func() []bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.Admit(ctx, &ledger.Admission{Request: request("probe", ""), Hold: 1 << 40})
		if err == nil {
			t.Fatal("admitted while Postgres is away")
		}
		if fault.KindOf(err) != fault.Unavailable {
			return nil
		}
		return []bool{true}
	})
}

func admit(t *testing.T, w *ledger.Writer, key string, hold money.NanoUSD) (*ledger.Ticket, ledger.Request) {
	t.Helper()
	r := request(key, "team")
	ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: hold, Tokens: 10, Claims: ofKey(key, budget(1000))})
	if err != nil {
		t.Fatal(err)
	}
	return ticket, r
}

// rowsOf waits for the rows of a request, its adjustments included.
func rowsOf(t *testing.T, s *Store, r ledger.Request, n int) []ledger.Row {
	t.Helper()
	return waitFor(t, func() []ledger.Row {
		var all []ledger.Row
		for _, id := range []string{r.RequestID, r.RequestID + ".adj1"} {
			rows, err := s.Rows(t.Context(), ledger.Filter{RequestID: id, Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rows...)
		}
		if len(all) < n {
			return nil
		}
		return all
	})
}

func TestAnswersEndWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	w := startReplica(t, db, dir, settings)
	ticket, r := admit(t, w.Writer, "k", 100)
	w.fall(t)
	// It returns while the cable is cut; otherwise the test would never end.
	if err := ticket.Settle(t.Context(), settlement(r, 42)); err != nil {
		t.Fatal(err)
	}
	w.cable.Cut.Store(false)
	rowsOf(t, w.store, r, 1)
	w.stop()
	if a := auditClean(t, w.store); a.Rows != 1 || a.Cost != 42 || a.Held != 0 {
		t.Errorf("audit = %+v", a)
	}
	next := startReplica(t, db, dir, settings)
	defer next.stop()
	if next.found != 0 {
		t.Errorf("the journal still holds %d records", next.found)
	}
}

// TestAKilledReplicasJournalIsReplayed kills a replica while Postgres is away and
// its settlement is in the journal: the next process settles it once, with what
// was really used, whoever was first to take the dead log over.
func TestAKilledReplicasJournalIsReplayed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"by its own restart", "after another settled it"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			dir := t.TempDir()
			w := startReplica(t, db, dir, settings)
			ticket, r := admit(t, w.Writer, "k", 100)
			w.fall(t)
			if err := ticket.Settle(t.Context(), settlement(r, 42)); err != nil {
				t.Fatal(err)
			}
			w.kill()
			want := 1
			if name != "by its own restart" {
				other := startReplica(t, db, t.TempDir(), called("other", 100*time.Millisecond))
				rowsOf(t, w.store, r, 1)
				other.stop()
				want = 2
			}
			for _, name := range []string{"second", "third"} { // the third finds nothing to do
				next := startReplica(t, db, dir, called(name, 100*time.Millisecond))
				rows := rowsOf(t, w.store, r, want)
				if len(rows) != want || rows[0].Cost+rows[len(rows)-1].Cost*money.NanoUSD(want-1) != 42 {
					t.Errorf("rows %+v", rows)
				}
				next.stop()
			}
			if a := auditClean(t, w.store); a.Cost != 42 || a.Held != 0 || a.OpenRequests != 0 {
				t.Errorf("audit = %+v", a)
			}
		})
	}
}

func TestTheOutageAllowance(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.OutageAllowance, set.OutageWindow = 250, time.Hour
	w := startReplica(t, db, t.TempDir(), set)
	ticket, r := admit(t, w.Writer, "k", 100) // its account exists
	if err := ticket.Settle(t.Context(), settlement(r, 10)); err != nil {
		t.Fatal(err)
	}
	w.fall(t)
	first, r1 := admit(t, w.Writer, "k", 100)
	second, r2 := admit(t, w.Writer, "k", 100)
	if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 100}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("over the allowance: %v", err)
	}
	if err := first.Settle(t.Context(), settlement(r1, 30)); err != nil {
		t.Fatal(err)
	}
	third, r3 := admit(t, w.Writer, "k", 100) // what the first did not use
	w.cable.Cut.Store(false)
	rowsOf(t, w.store, r1, 1)
	// The other two end after the outage.
	for ticket, r := range map[*ledger.Ticket]ledger.Request{second: r2, third: r3} {
		if err := ticket.Settle(t.Context(), settlement(r, 50)); err != nil {
			t.Fatal(err)
		}
		rowsOf(t, w.store, r, 1)
	}
	w.stop()
	sum, err := w.store.Summary(t.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: "k"})
	if a := auditClean(t, w.store); err != nil || a.Cost != 10+30+50+50 || a.Held != 0 || sum.Spent != a.Cost {
		t.Errorf("audit = %+v, key %+v, %v", a, sum, err)
	}
}

// TestTheOutageAllowanceIsForOneOutage has a request of one outage end in the next.
func TestTheOutageAllowanceIsForOneOutage(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.OutageAllowance, set.OutageWindow = 250, time.Hour
	w := startReplica(t, db, t.TempDir(), set)
	<-w.Ready()
	w.fall(t)
	first, r1 := admit(t, w.Writer, "k", 100)
	w.cable.Cut.Store(false)
	waitFor(t, func() []bool { // until it is back
		ticket := w.Begin(&ledger.Admission{Request: request("other", ""), Hold: 1})
		if ticket == nil {
			return nil
		}
		if err := ticket.Settle(t.Context(), settlement(request("other", ""), 0)); err != nil {
			t.Error(err)
		}
		return []bool{true}
	})
	w.fall(t)
	second, r2 := admit(t, w.Writer, "k", 100)
	if err := first.Settle(t.Context(), settlement(r1, 10)); err != nil {
		t.Fatal(err)
	}
	third, r3 := admit(t, w.Writer, "k", 100) // 10 + 100 + 100
	if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 100}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("over the allowance: %v", err)
	}
	w.cable.Cut.Store(false)
	for ticket, r := range map[*ledger.Ticket]ledger.Request{second: r2, third: r3} {
		if err := ticket.Settle(t.Context(), settlement(r, 50)); err != nil {
			t.Fatal(err)
		}
		rowsOf(t, w.store, r, 1)
	}
	w.stop()
	auditClean(t, w.store)
}

// TestAnswersEndWhilePostgresSaysNothing has Postgres neither answer nor refuse: the
// journal takes what ends.
func TestAnswersEndWhilePostgresSaysNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), settings)
	var tickets []*ledger.Ticket
	var of []ledger.Request
	for range 20 {
		ticket, r := admit(t, w.Writer, "k", 10)
		tickets, of = append(tickets, ticket), append(of, r)
	}
	release := w.cable.Hang()
	// They return while it hangs; otherwise the test would never end.
	for i, ticket := range tickets {
		if err := ticket.Settle(t.Context(), settlement(of[i], 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 1}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("admitted while Postgres hangs: %v", err)
	}
	release()
	for _, r := range of {
		rowsOf(t, w.store, r, 1)
	}
	w.stop()
	if a := auditClean(t, w.store); a.Rows != 20 || a.Held != 0 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestASettlementThatFoundNoPlaceIsSettledLater fills the writer's queue.
func TestASettlementThatFoundNoPlaceIsSettledLater(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), settings)
	ticket, r := admit(t, w.Writer, "k", 100)
	release := w.cable.Hold()
	for range 1000 { // what finds no place is dropped
		ticket.Progress(&ledger.Progress{MessageID: "msg_1"})
	}
	leave(t, ticket, settlement(r, 42))
	release()
	rowsOf(t, w.store, r, 1)
	w.stop()
	if a := auditClean(t, w.store); a.Rows != 1 || a.Held != 0 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestAllOfAJournalIsSettledAtOnce finds much more in it than one batch, and does not
// wait for a heartbeat.
func TestAllOfAJournalIsSettledAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	j, _, err := journal.Open[ledger.Record](dir)
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for range n / 100 {
		var records []ledger.Record
		for range 100 {
			records = append(records, ledger.Record{By: "dead", Settlement: settlement(request("k", "team"), 1)})
		}
		if err := j.Append(records...); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	set := called("second", time.Minute)
	set.Heartbeat = time.Hour
	w := startReplica(t, db, dir, set)
	waitFor(t, func() []bool {
		var rows int
		if err := db.QueryRow(t.Context(), `select count(*) from spend.spend_logs`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return make([]bool, rows/n)
	})
	w.stop()
	if a := auditClean(t, w.store); a.Rows != n || w.found != n {
		t.Errorf("audit = %+v, found %d", a, w.found)
	}
}

func TestTheOutageWindowEnds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.OutageAllowance, set.OutageWindow = money.USD, time.Nanosecond
	w := startReplica(t, db, t.TempDir(), set)
	defer w.stop()
	w.fall(t)
	if _, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 1}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("after the window: %v", err)
	}
	w.cable.Cut.Store(false)
}

// TestARequestThatWasLetInDuringAnOutageSurvivesAKill kills a replica with such a
// request in flight: its next process settles it by what was seen of it.
func TestARequestThatWasLetInDuringAnOutageSurvivesAKill(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	dir := t.TempDir()
	set := settings
	set.OutageAllowance, set.OutageWindow = money.USD, time.Hour
	w := startReplica(t, db, dir, set)
	w.fall(t)
	ticket, r := admit(t, w.Writer, "k", 100)
	ticket.Progress(&ledger.Progress{MessageID: "msg_1", Usage: pricing.Usage{InputTokens: 7}, Cost: 21})
	_, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 2 * money.USD})
	if fault.KindOf(err) != fault.Unavailable { // whose answer says that the progress was taken
		t.Fatal(err)
	}
	w.kill()
	next := startReplica(t, db, dir, called("second", 50*time.Millisecond))
	defer next.stop()
	rows := rowsOf(t, w.store, r, 1)
	if len(rows) != 1 || rows[0].Status != ledger.Abandoned || rows[0].Cost != 21 || rows[0].MessageID != "msg_1" || !rows[0].Estimated {
		t.Errorf("rows %+v", rows)
	}
	auditClean(t, w.store)
}

func TestWithoutAJournalASettlementWaitsForPostgres(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	c := &ledgertest.Cable{Store: s}
	w := ledger.NewWriter(c, nil, nil, settings, observer{t})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.WithoutCancel(t.Context())) }()
	ticket, r := admit(t, w, "k", 100)
	c.Cut.Store(true)
	settled := make(chan error, 1)
	go func() { settled <- ticket.Settle(t.Context(), settlement(r, 42)) }()
	notice(t, w)
	select {
	case err := <-settled:
		t.Fatalf("settled while Postgres is away: %v", err)
	default:
	}
	c.Cut.Store(false)
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	w.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a := auditClean(t, s); a.Rows != 1 || a.Cost != 42 {
		t.Errorf("audit = %+v", a)
	}
}

// TestTheRestOfADeadReplicasHoldStays freezes a replica with a request of nearly
// the whole budget: another settles it by an estimate, but nobody is let into the
// rest until the frozen one has corrected it, or the time for that is over.
func TestTheRestOfADeadReplicasHoldStays(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{"until it is corrected": time.Hour, "until its time is over": 300 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			frozen := settings
			frozen.Heartbeat = time.Hour
			dead := startReplica(t, db, t.TempDir(), frozen)
			ticket, r := admit(t, dead.Writer, "k", 900) // of 1000
			quick := settings
			quick.Silence, quick.AbandonedHold = time.Millisecond, after
			other := startReplica(t, db, t.TempDir(), quick)
			rowsOf(t, other.store, r, 1) // settled at nothing
			ask := func() error {
				_, err := other.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 200, Claims: ofKey("k", budget(1000))})
				return err
			}
			if name == "until it is corrected" {
				if refusal, ok := errors.AsType[*ledger.Refusal](ask()); !ok || refusal.Final {
					t.Errorf("let into what a frozen request may still cost: %v", refusal)
				}
				if err := ticket.Settle(t.Context(), settlement(r, 850)); err != nil {
					t.Fatal(err)
				}
				rowsOf(t, other.store, r, 2)
				if refusal, ok := errors.AsType[*ledger.Refusal](ask()); !ok || !refusal.Final {
					t.Errorf("200 of the 150 that are left: %v", refusal)
				}
			} else {
				waitFor(t, func() []bool {
					if ask() != nil {
						return nil
					}
					return []bool{true}
				})
			}
			dead.stop()
			other.stop()
			a, err := other.store.Audit(t.Context())
			if err != nil || len(a.Faults) > 0 {
				t.Errorf("audit %+v, %v", a, err)
			}
		})
	}
}

// waitFor asks until there is an answer; the test's deadline ends it.
func waitFor[T any](t *testing.T, ask func() []T) []T {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if got := ask(); len(got) > 0 {
			return got
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it never came")
		}
	}
}

func cause(err error) string {
	if err == nil {
		return "done"
	}
	return fault.Cause(err)
}
