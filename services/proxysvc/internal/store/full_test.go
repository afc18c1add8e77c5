package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// asServices opens a pool as services do, on the database of another, as a role
// that is no superuser.
func asServices(t *testing.T, db *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	role := pgtest.Role(t, db.Config().ConnString(), "proxysvc")
	u, err := url.Parse(role)
	if err != nil {
		t.Fatal("the role's URL is not a URL")
	}
	name := pgx.Identifier{u.User.Username()}.Sanitize()
	for _, what := range []string{"usage on schema spend", "all on all tables in schema spend", "execute on all functions in schema spend"} {
		exec(t, db, `grant `+what+` to `+name)
	}
	pool, err := pg.Open(t.Context(), role, pg.Options{ApplicationName: "proxysvc"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func exec(t *testing.T, db *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := db.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Fatal(err)
	}
}

// hangUp ends the sessions of services.
func hangUp(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	exec(t, db, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'proxysvc'`)
}

// readOnly makes the database read only, as a failover to a standby does.
func readOnly(t *testing.T, db *pgxpool.Pool) (heal func()) {
	t.Helper()
	name := pgx.Identifier{db.Config().ConnConfig.Database}.Sanitize()
	exec(t, db, `alter database `+name+` set default_transaction_read_only = on`)
	hangUp(t, db)
	return func() { exec(t, db, `alter database `+name+` reset default_transaction_read_only`) } // the sessions stay
}

// tooSlow lets no statement end in time that writes rows of spend.
func tooSlow(t *testing.T, db *pgxpool.Pool) (heal func()) {
	t.Helper()
	exec(t, db, `create function spend.dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$`)
	exec(t, db, `create trigger dawdle before insert on spend.spend_logs for each row execute function spend.dawdle()`)
	name := pgx.Identifier{db.Config().ConnConfig.Database}.Sanitize()
	exec(t, db, `alter database `+name+` set statement_timeout = '200ms'`)
	hangUp(t, db)
	return func() {
		exec(t, db, `alter database `+name+` reset statement_timeout`)
		hangUp(t, db)
	}
}

// tooMany has other clients take all connections.
func tooMany(t *testing.T, db *pgxpool.Pool) (heal func()) {
	t.Helper()
	name := pgx.Identifier{db.Config().ConnConfig.Database}.Sanitize()
	exec(t, db, `alter database `+name+` connection limit 0`)
	hangUp(t, db)
	return func() { exec(t, db, `alter database `+name+` connection limit -1`) }
}

// conflicting has every batch with rows fail as one that conflicts with another.
func conflicting(t *testing.T, db *pgxpool.Pool) (heal func()) {
	t.Helper()
	conflict(t, db, "spend.spend_logs", 1_000_000)
	return func() { exec(t, db, `select setval('spend.conflicts', 1000000)`) }
}

// conflict has the next batches fail as such that insert into a table.
func conflict(t *testing.T, db *pgxpool.Pool, table string, times int) {
	t.Helper()
	exec(t, db, `create sequence spend.conflicts`)
	exec(t, db, `grant usage on sequence spend.conflicts to public`)
	exec(t, db, fmt.Sprintf(`create function spend.conflict() returns trigger language plpgsql as $$ begin
		if nextval('spend.conflicts') <= %d then raise exception using errcode = 'serialization_failure'; end if; return new; end $$`, times))
	exec(t, db, `create trigger conflict before insert on `+table+` for each row execute function spend.conflict()`)
}

// TestABatchThatConflictsOnceIsWrittenAgain has Postgres undo a batch with an
// admission in it: nobody but the log of errors hears of it.
func TestABatchThatConflictsOnceIsWrittenAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, asServices(t, db), t.TempDir(), settings)
	first, r1 := admit(t, w.Writer, "k", 100)
	conflict(t, db, "spend.open_requests", 1)
	second, r2 := admit(t, w.Writer, "k", 100) // fails the test when it is refused
	for ticket, r := range map[*ledger.Ticket]ledger.Request{first: r1, second: r2} {
		if err := ticket.Settle(t.Context(), settlement(r, 20)); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	if a := auditClean(t, New(db)); a.Cost != 40 || a.Rows != 2 || a.Held != 0 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// fullFor fills the disk for the rows of a table: its file becomes /dev/full, which
// takes nothing and says so to Postgres as a full disk does.
func fullFor(t *testing.T, db *pgxpool.Pool, table string) (heal func()) {
	t.Helper()
	var dir, file string
	err := db.QueryRow(t.Context(), `select current_setting('data_directory'), pg_relation_filepath($1::regclass)`, table).Scan(&dir, &file)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, file)
	aside := file + ".aside"
	exec(t, db, `checkpoint`) // no dirty page is left that a writer of Postgres would write there
	if err := errors.Join(os.Rename(file, aside), os.Symlink("/dev/full", file)); err != nil {
		t.Fatal(err)
	}
	hangUp(t, db) // they have the file open
	return func() {
		if err := errors.Join(os.Remove(file), os.Rename(aside, file)); err != nil {
			t.Error(err)
		}
		hangUp(t, db)
	}
}

// full fills it for the rows of spend.
func full(t *testing.T, db *pgxpool.Pool) (heal func()) {
	t.Helper()
	return fullFor(t, db, "spend.spend_logs_default")
}

// TestRequestsAreLetInWhereTheDiskIsFullForThem has room for nothing but what ends:
// a request that finds out is refused, those after it are let in by the allowance,
// until something could be written again.
func TestRequestsAreLetInWhereTheDiskIsFullForThem(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.OutageAllowance, set.OutageWindow = money.USD, time.Hour
	w := startReplica(t, asServices(t, db), t.TempDir(), set)
	first, r1 := admit(t, w.Writer, "k", 100)
	if err := first.Settle(t.Context(), settlement(r1, 40)); err != nil { // no row is open any more
		t.Fatal(err)
	}
	exec(t, db, `truncate spend.open_requests`) // nor is there a page to reuse
	heal := fullFor(t, db, "spend.open_requests")
	want := money.NanoUSD(40)
	for range 10 {
		r := request("k", "team")
		ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 100})
		if fault.KindOf(err) == fault.Unavailable {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.Settle(t.Context(), settlement(r, 1)); err != nil {
			t.Fatal(err)
		}
		want++
	}
	if want == 40 {
		t.Error("no request was let in")
	}
	heal()
	w.stop()
	if a := auditClean(t, New(db)); a.Cost != want || a.Held != 0 || a.OpenRequests != 0 {
		t.Errorf("audit = %+v", a)
	}
}

// TestPostgresThatCannotBeWritten has a real Postgres refuse to write: what is in
// flight ends at once, new requests are refused at once or let in by the allowance,
// and all of it is on the ledger afterwards, without a restart.
func TestPostgresThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*testing.T, *pgxpool.Pool) func(){
		"read only": readOnly, "disk full": full, "too many clients": tooMany, "statements time out": tooSlow, "conflicts": conflicting,
	} {
		for mode, allowance := range map[string]money.NanoUSD{"refusing": 0, "with an allowance": money.USD} {
			t.Run(name+", "+mode, func(t *testing.T) {
				t.Parallel()
				db := pgtest.New(t, Schema, Migrations)
				set := settings
				set.OutageAllowance, set.OutageWindow, set.AdmitTimeout = allowance, time.Hour, time.Minute
				w := startReplica(t, asServices(t, db), t.TempDir(), set)
				first, r1 := admit(t, w.Writer, "k", 100)
				second, r2 := admit(t, w.Writer, "k", 100)
				heal := fail(t, db)
				// Each returns while nothing can be written; otherwise the test never ends.
				if err := first.Settle(t.Context(), settlement(r1, 40)); err != nil {
					t.Fatal(err)
				}
				r3 := request("k", "team")
				third, err := w.Admit(t.Context(), &ledger.Admission{Request: r3, Hold: 100, Claims: ofKey("k", budget(1000))})
				if allowance == 0 && fault.KindOf(err) != fault.Unavailable || allowance > 0 && err != nil {
					t.Errorf("a new request: %v", err)
				}
				if err := second.Settle(t.Context(), settlement(r2, 2)); err != nil {
					t.Fatal(err)
				}
				want := money.NanoUSD(42)
				if third != nil {
					if err := third.Settle(t.Context(), settlement(r3, 300)); err != nil {
						t.Fatal(err)
					}
					want += 300
				}
				heal()
				rowsOf(t, New(db), r1, 1)
				rowsOf(t, New(db), r2, 1)
				if third != nil {
					rowsOf(t, New(db), r3, 1)
				}
				last, r4 := admit(t, w.Writer, "k", 100)
				if err := last.Settle(t.Context(), settlement(r4, 0)); err != nil {
					t.Fatal(err)
				}
				w.stop()
				if a := auditClean(t, New(db)); a.Cost != want || a.Held != 0 || a.OpenRequests != 0 {
					t.Errorf("audit = %+v", a)
				}
			})
		}
	}
}
