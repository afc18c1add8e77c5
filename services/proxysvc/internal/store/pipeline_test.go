package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestAnErrorAnywhereInAPipelineIsTheOnlyOutcome has statements fail before and within a
// COPY: nothing is written, and the session goes on.
func TestAnErrorAnywhereInAPipelineIsTheOnlyOutcome(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	c, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	batch := &ledger.Batch{LogID: 1, FirstSeq: 1, Settlements: []*ledger.Settlement{
		settlement(request("k", "team"), 1), settlement(request("k", "team"), 2),
	}}
	for _, divisor := range []int{0, 1, 2} {
		p := &pipeline{}
		p.queue(`select 1 / $1::bigint`, nil, divisor)
		queueSpend(p, batch)
		read := int64(-1)
		p.queue(`select count(*), 'text', now() from spend.spend_logs`, func(r row) { read = r.bigint(0) })
		err := p.send(t.Context(), c.Conn())
		e, _ := errors.AsType[*pgconn.PgError](err)
		switch divisor {
		case 0:
			if e == nil || e.Code != "22012" || read != -1 {
				t.Errorf("a division by zero before the COPY: %v, rows %d", err, read)
			}
		case 1:
			if err != nil || read != 2 {
				t.Errorf("two rows: %v, rows %d", err, read)
			}
		case 2:
			if e == nil || e.Code != "23505" || read != -1 {
				t.Errorf("rows that are there: %v, rows %d", err, read)
			}
		}
	}
	if c.Conn().IsClosed() {
		t.Error("the session was left")
	}
}

// TestASessionThatWasInterruptedIsLeft has the caller give up while the last results are
// read: whoever is next would find a deadline that has passed.
func TestASessionThatWasInterruptedIsLeft(t *testing.T) {
	t.Parallel()
	c, err := pgtest.New(t, Schema, Migrations).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	ctx, giveUp := context.WithCancel(t.Context())
	p := &pipeline{}
	p.queue(`select 1::bigint`, func(row) { giveUp() })
	err = p.send(ctx, c.Conn())
	if !c.Conn().IsClosed() {
		t.Errorf("the session is used on, after %v", err)
	}
}

// TestResultsAreReadInUTC has instants on both sides of Postgres's epoch.
func TestResultsAreReadInUTC(t *testing.T) {
	t.Parallel()
	c, err := pgtest.New(t, Schema, Migrations).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	var got []time.Time
	p := &pipeline{}
	p.queue(`select timestamptz '2026-11-30 12:00:00.000001+00', timestamptz '1999-12-31 23:59:58.5+00'`, func(r row) {
		got = append(got, r.instant(0), r.instant(1))
	})
	if err := p.send(t.Context(), c.Conn()); err != nil {
		t.Fatal(err)
	}
	want := []time.Time{time.Date(2026, 11, 30, 12, 0, 0, 1000, time.UTC), time.Date(1999, 12, 31, 23, 59, 58, 5e8, time.UTC)}
	if !slices.Equal(got, want) { // the same zone, too
		t.Errorf("%v, want %v", got, want)
	}
}

// TestASessionThatHasLostItsStatementsIsLeft is what a change of the schema may do to a
// session.
func TestASessionThatHasLostItsStatementsIsLeft(t *testing.T) {
	t.Parallel()
	set := pgtest.New(t, Schema, Migrations).Config()
	set.MaxConns = 1
	db, err := pgxpool.NewWithConfig(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w, stop := startWriter(t, db, settings)
	for range 3 {
		for _, limits := range []ledger.Limits{{}, budget(100)} {
			if _, err := db.Exec(t.Context(), `deallocate all`); err != nil {
				t.Fatal(err)
			}
			r := request("k", "team")
			spend(t, w, &ledger.Admission{Request: r, Hold: 1, Claims: ofKey("k", limits)})
		}
	}
	stop()
}
