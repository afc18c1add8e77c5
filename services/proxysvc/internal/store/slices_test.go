package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// sliced are settings of a process whose slices outlast the test.
func sliced(name string) ledger.Settings {
	set := called(name, time.Minute)
	set.BudgetSlice = time.Hour
	return set
}

// ofBoth are claims of a key and its team.
func ofBoth(key, team money.NanoUSD) []ledger.Claim {
	return append(ofKey("k", budget(key)), ofTeam("team", budget(team))...)
}

// stand is where an account stands in the tables.
type stand struct{ Spent, Held, Open, Slices int64 }

func standOf(t *testing.T, db *pgxpool.Pool, kind, id string) stand {
	t.Helper()
	rows, _ := db.Query(t.Context(), `
		select spent_nano_usd, held_nano_usd, open_requests, (select count(*) from spend.slices s where s.kind = a.kind and s.id = a.id)
		from spend.accounts a where kind = $1 and id = $2`, kind, id)
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[stand])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// comesTo waits until the key stands there.
func comesTo(t *testing.T, db *pgxpool.Pool, want stand) {
	t.Helper()
	waitFor(t, func() []bool {
		if standOf(t, db, "key", "k") != want {
			return nil
		}
		return []bool{true}
	})
}

// start admits a request, beside its call if that can be.
func start(t *testing.T, w *ledger.Writer, a *ledger.Admission) (*ledger.Ticket, bool, error) {
	t.Helper()
	if ticket := w.Begin(a); ticket != nil {
		return ticket, true, ticket.Wait(t.Context())
	}
	ticket, err := w.Admit(t.Context(), a)
	return ticket, false, err
}

// TestASliceAdmitsWithoutAskingTheAccount has requests of a key and a team with budgets
// admitted while nobody can read what these have: beside their calls, and before.
func TestASliceAdmitsWithoutAskingTheAccount(t *testing.T) {
	t.Parallel()
	for _, beside := range []bool{true, false} {
		t.Run(fmt.Sprint("beside ", beside), func(t *testing.T) {
			t.Parallel()
			asksNobody(t, beside)
		})
	}
}

func asksNobody(t *testing.T, beside bool) {
	t.Helper()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), sliced("first"))
	<-w.Ready()
	for range 2 { // an account that is asked twice gets a slice
		a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(100_000, 1_000_000)}
		if ticket, begun, err := start(t, w.Writer, a); begun || err != nil {
			t.Fatalf("begun %v, %v", begun, err)
		} else if err := ticket.Settle(t.Context(), settlement(a.Request, 7)); err != nil {
			t.Fatal(err)
		}
	}
	if got := standOf(t, db, "key", "k"); got.Slices != 1 || got.Held < 1600 {
		t.Errorf("the key stands at %+v", got)
	}
	busy, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Rollback(t.Context()) //nolint:errcheck // it is of no consequence
	if _, err := busy.Exec(t.Context(), `select from spend.accounts for update`); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(100_000, 1_000_000)}
		var ticket *ledger.Ticket
		var err error
		if beside {
			if ticket = w.Begin(a); ticket == nil {
				t.Fatal("not begun")
			}
			err = ticket.Wait(t.Context())
		} else {
			ticket, err = w.Admit(t.Context(), a)
		}
		if err != nil {
			t.Fatal(err)
		}
		spent := money.NanoUSD(14 + 7*i)
		left := 100_000 - spent
		if diff := cmp.Diff(ledger.Standing{KeySpent: &spent, Left: &left}, ticket.Standing); diff != "" {
			t.Errorf("it is told (-want +got):\n%s", diff)
		}
		if err := ticket.Settle(t.Context(), settlement(a.Request, 7)); err != nil {
			t.Fatal(err)
		}
	}
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	auditClean(t, w.store)
	w.stop()
	for _, id := range [][2]string{{"key", "k"}, {"team", "team"}} {
		if diff := cmp.Diff(stand{Spent: 12 * 7}, standOf(t, db, id[0], id[1])); diff != "" {
			t.Errorf("%s in the end (-want +got):\n%s", id[0], diff)
		}
	}
	auditClean(t, w.store)
}

// TestSlicesHoldABudgetOverReplicas has replicas spend a budget to its end: no more than it,
// and as much as any request fits, however it was sliced.
func TestSlicesHoldABudgetOverReplicas(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	const limit, hold = 100_000, 100
	var users sync.WaitGroup
	var begun atomic.Int64
	var stops []func()
	for n := range 3 {
		set := called(string(rune('a'+n)), time.Minute)
		set.BudgetSlice = []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}[n]
		w := startReplica(t, db, t.TempDir(), set)
		<-w.Ready()
		stops = append(stops, w.stop)
		for g := range 4 {
			users.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), uint64(g)))
				for {
					a := &ledger.Admission{Request: request("k", "team"), Hold: hold, Tokens: 3, Claims: ofBoth(2*limit, limit)}
					ticket, fast, err := start(t, w.Writer, a)
					if refusal, ok := errors.AsType[*ledger.Refusal](err); ok {
						if refusal.Final {
							return
						}
						continue
					}
					if err == nil {
						err = ticket.Settle(t.Context(), settlement(a.Request, money.NanoUSD(1+r.IntN(hold))))
					}
					if err != nil {
						t.Error(err)
						return
					}
					if fast {
						begun.Add(1)
					}
				}
			})
		}
	}
	users.Wait()
	for _, stop := range stops {
		stop()
	}
	a := auditClean(t, New(db))
	if a.Cost > limit || a.Cost <= limit-hold || begun.Load() == 0 {
		t.Errorf("spent %d of %d, %d of %d requests by slices", a.Cost, limit, begun.Load(), a.Rows)
	}
}

// TestASliceThatIsNotUsedIsGivenBack also when its budget has become another one.
func TestASliceThatIsNotUsedIsGivenBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := called("first", time.Minute)
	set.BudgetSlice = 100 * time.Millisecond
	w := startReplica(t, db, t.TempDir(), set)
	<-w.Ready()
	a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 3, Claims: ofBoth(100_000, 1_000_000)}
	running, _, err := start(t, w.Writer, a)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	waitFor(t, func() []bool { // a slow machine may ask twice too late
		spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: a.Claims})
		n++
		if standOf(t, db, "key", "k").Slices == 0 {
			return nil
		}
		return []bool{true}
	})
	comesTo(t, db, stand{Spent: 7 * n, Held: 100, Open: 1}) // the first runs beside the slice
	if err := running.Settle(t.Context(), settlement(a.Request, 7)); err != nil {
		t.Fatal(err)
	}
	n++
	comesTo(t, db, stand{Spent: 7 * n})
	auditClean(t, w.store)
	w.stop()
}

// TestAnotherBudgetIsAnotherSlice lowers a budget of which a slice is left.
func TestAnotherBudgetIsAnotherSlice(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), sliced("first"))
	<-w.Ready()
	for range 3 {
		spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(100_000, 1_000_000)})
	}
	_, begun, err := start(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(110, 1_000_000)})
	if refusal, ok := errors.AsType[*ledger.Refusal](err); !ok || !refusal.Final || begun {
		t.Errorf("beside 21 spent of 110: %v, begun %v", err, begun)
	}
	if got := standOf(t, db, "key", "k"); got.Slices != 0 || got.Held != 0 || got.Spent != 21 {
		t.Errorf("the key stands at %+v", got)
	}
	w.stop()
	auditClean(t, w.store)
}

// TestADeadReplicasSlicesAreGivenBack freezes a replica that has spent of a slice, and has
// requests of it in flight: on the ledger and not. The rest of the slice is held until it
// must have posted what it knows.
func TestADeadReplicasSlicesAreGivenBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := sliced("first")
	set.AbandonedHold = time.Hour
	frozen := startReplica(t, db, t.TempDir(), set)
	<-frozen.Ready()
	ask := func() (*ledger.Ticket, ledger.Request) {
		a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 3, Claims: ofBoth(100_000, 1_000_000)}
		ticket, _, err := start(t, frozen.Writer, a)
		if err != nil {
			t.Fatal(err)
		}
		return ticket, a.Request
	}
	for range 3 {
		ticket, r := ask()
		if err := ticket.Settle(t.Context(), settlement(r, 30)); err != nil {
			t.Fatal(err)
		}
	}
	open, of := ask() // on the ledger
	held := standOf(t, db, "key", "k").Held
	release := frozen.cable.Hold()
	a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 3, Claims: ofBoth(100_000, 1_000_000)}
	begun := frozen.Begin(a) // not on it
	if begun == nil {
		t.Fatal("not begun")
	}
	settler, err := New(db).OpenLog(t.Context(), "settler") // it settles nothing, so another one will
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() []*ledger.Settlement {
		orphans, err := New(db).TakeOver(t.Context(), settler.LogID, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return orphans
	})
	auditClean(t, New(db))
	quick := called("second", time.Millisecond)
	quick.AbandonedHold = time.Hour
	other := startReplica(t, db, t.TempDir(), quick)
	rowsOf(t, other.store, of, 1)
	want := stand{Spent: 90, Held: held - 60} // two of the three were spent of the slice
	for _, id := range [][2]string{{"key", "k"}, {"team", "team"}} {
		got := standOf(t, db, id[0], id[1])
		if id[0] == "team" {
			want.Held = got.Held // its slice is as large as it wants to be
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s when the log was fenced (-want +got):\n%s", id[0], diff)
		}
	}
	auditClean(t, other.store)
	release()
	if err := begun.Settle(t.Context(), settlement(a.Request, 100)); err != nil {
		t.Fatal(err)
	}
	if err := open.Settle(t.Context(), settlement(of, 50)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() []bool {
		if standOf(t, db, "key", "k").Spent != 90+100+50 {
			return nil
		}
		return []bool{true}
	})
	auditClean(t, other.store)
	if _, err := db.Exec(t.Context(), `update spend.residuals set until = now()`); err != nil {
		t.Fatal(err)
	}
	if err := other.store.FreeResiduals(t.Context()); err != nil {
		t.Fatal(err)
	}
	frozen.stop()
	other.stop()
	if diff := cmp.Diff(stand{Spent: 240}, standOf(t, db, "key", "k")); diff != "" {
		t.Errorf("the key in the end (-want +got):\n%s", diff)
	}
	auditClean(t, other.store)
}

// TestANewWindowIsNotToldTwice gives a key another window while what was spent of its slice
// is not told: the window has it once.
func TestANewWindowIsNotToldTwice(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), sliced("first"))
	<-w.Ready()
	for range 5 {
		spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(100_000, 1_000_000)})
	}
	both := ledger.Limits{Budgets: []ledger.Budget{{Limit: 100_000}, {Limit: 100_000, Window: "30d"}}}
	spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofKey("k", both)})
	w.stop()
	var spent int64
	if err := db.QueryRow(t.Context(), `select spent_nano_usd from spend.windows where id = 'k'`).Scan(&spent); err != nil || spent != 42 {
		t.Errorf("the window has %d, %v, want 42", spent, err)
	}
	auditClean(t, w.store)
}

// TestABatchThatIsRefusedTakesNothingOfSlices has Postgres refuse one of several requests
// that a slice let in: the others are tried again, and in the end nothing runs in the slice.
func TestABatchThatIsRefusedTakesNothingOfSlices(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	if _, err := db.Exec(t.Context(), `alter table spend.open_requests add check (user_agent <> 'refused')`); err != nil {
		t.Fatal(err)
	}
	set := called("first", time.Minute)
	set.BudgetSlice = time.Second
	w := startReplica(t, db, t.TempDir(), set)
	<-w.Ready()
	claims := ofBoth(100_000, 1_000_000)
	for range 3 {
		spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: claims})
	}
	release := w.cable.Hold()
	var users sync.WaitGroup
	for n := range 8 {
		users.Go(func() {
			a := &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: claims}
			if n == 3 {
				a.UserAgent = "refused"
			}
			ticket, err := w.Admit(t.Context(), a)
			if n == 3 {
				if err == nil {
					t.Error("Postgres did not refuse it")
				}
				return
			}
			if err == nil {
				err = ticket.Settle(t.Context(), settlement(a.Request, 7))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	release()
	users.Wait()
	comesTo(t, db, stand{Spent: 70})
	w.stop()
	auditClean(t, w.store)
}

// beforeCommit does something before a batch that a test waits for.
type beforeCommit struct {
	*Store
	do func(*ledger.Batch)
}

func (s beforeCommit) Commit(ctx context.Context, b *ledger.Batch) error {
	s.do(b)
	return s.Store.Commit(ctx, b)
}

// TestASliceOfAFencedLogAdmitsNobody fences a log when a slice of it has let a request in
// that is not on the ledger: it is decided on anew, and its budget is used up by then.
func TestASliceOfAFencedLogAdmitsNobody(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	settler, err := s.OpenLog(t.Context(), "settler")
	if err != nil {
		t.Fatal(err)
	}
	var fenced bool
	w, stop := startWriterOn(t, beforeCommit{s, func(b *ledger.Batch) {
		if fenced || len(b.Admissions) == 0 || b.Admissions[0].Slices(b.LogID) == 0 {
			return
		}
		fenced = true
		if _, err := s.TakeOver(t.Context(), settler.LogID, -time.Hour); err != nil {
			t.Error(err)
		}
		if _, err := db.Exec(t.Context(), `update spend.accounts set spent_nano_usd = 100000 where kind = 'key'`); err != nil {
			t.Error(err)
		}
	}}, sliced("first"))
	claims := ofBoth(100_000, 1_000_000)
	for range 2 {
		spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: claims})
	}
	_, err = w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: claims})
	if refusal, ok := errors.AsType[*ledger.Refusal](err); !ok || !refusal.Final || !fenced {
		t.Errorf("the budget is used up: %v, fenced %v", err, fenced)
	}
	stop()
}

// TestWhatASliceLetInHoldsOfOtherAccounts writes a request that a slice of its key has let in,
// of a team that has no limit any more, with one that is decided on: what each holds of the
// team is given back.
func TestWhatASliceLetInHoldsOfOtherAccounts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w := startReplica(t, db, t.TempDir(), sliced("first"))
	<-w.Ready()
	spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofBoth(100_000, 1_000_000)})
	spend(t, w.Writer, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofKey("k", budget(100_000))})
	release := w.cable.Hold()
	begun := &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofKey("k", budget(100_000))}
	ticket := w.Begin(begun)
	if ticket == nil {
		t.Fatal("not begun")
	}
	var asked sync.WaitGroup
	asked.Go(func() {
		spend(t, w.Writer, &ledger.Admission{Request: request("other", "team"), Hold: 100, Claims: ofKey("other", budget(100_000))})
	})
	asked.Go(func() {
		if err := ticket.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
	release()
	asked.Wait()
	auditClean(t, w.store)
	if err := ticket.Settle(t.Context(), settlement(begun.Request, 7)); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if diff := cmp.Diff(stand{Spent: 28}, standOf(t, db, "team", "team")); diff != "" {
		t.Errorf("the team in the end (-want +got):\n%s", diff)
	}
	auditClean(t, w.store)
}
