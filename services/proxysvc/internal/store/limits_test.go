package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// TestWindows checks the edges of windows as LiteLLM has them, at an instant on a
// Tuesday.
func TestWindows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	for duration, want := range map[string][2]string{
		"30s": {"2026-11-24 13:37:00", "2026-11-24 13:37:30"},
		"15m": {"2026-11-24 13:30:00", "2026-11-24 13:45:00"},
		"1h":  {"2026-11-24 13:00:00", "2026-11-24 14:00:00"},
		"24h": {"2026-11-24 00:00:00", "2026-11-25 00:00:00"},
		"1d":  {"2026-11-24 00:00:00", "2026-11-25 00:00:00"},
		"3d":  {"2026-11-24 00:00:00", "2026-11-27 00:00:00"},
		"7d":  {"2026-11-23 00:00:00", "2026-11-30 00:00:00"},
		"1w":  {"2026-11-23 00:00:00", "2026-11-30 00:00:00"},
		"30d": {"2026-11-01 00:00:00", "2026-12-01 00:00:00"},
		"1mo": {"2026-11-01 00:00:00", "2026-12-01 00:00:00"},
	} {
		var start, end time.Time
		err := db.QueryRow(t.Context(), `select spend.window_start($1, $2), spend.window_end($1, $2)`, duration, "2026-11-24 13:37:11Z").Scan(&start, &end)
		if err != nil {
			t.Fatal(err)
		}
		got := [2]string{start.UTC().Format(time.DateTime), end.UTC().Format(time.DateTime)}
		if got != want {
			t.Errorf("%s: %v, want %v", duration, got, want)
		}
	}
}

// TestAWindowResetsItself spends a budget of a second, again and again: each
// window admits anew, without a job, and none goes over.
func TestAWindowResetsItself(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	defer stop()
	limits := ledger.Limits{Budgets: []ledger.Budget{{Limit: 100, Window: "1s"}}}
	admitted := map[time.Time]int{}
	refused := 0
	for len(admitted) < 3 || refused == 0 { // a machine that is slow needs more windows
		r := request("k", "team")
		ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 40, Claims: ofKey("k", limits)})
		if refusal, ok := errors.AsType[*ledger.Refusal](err); ok {
			if !refusal.Final {
				t.Fatal(refusal)
			}
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.Settle(t.Context(), settlement(r, 40)); err != nil {
			t.Fatal(err)
		}
		if ticket.Standing.ResetsAt.IsZero() {
			t.Fatal("the client is not told when the budget resets")
		}
		admitted[ticket.Standing.ResetsAt]++
	}
	for at, n := range admitted {
		if n > 2 {
			t.Errorf("%d requests of 40 in the window of 100 until %s", n, at)
		}
	}
	auditClean(t, New(db))
}

// TestRateLimitsHoldOverReplicas lets three replicas admit for one key and its
// team at once: no more requests than the key's limit get through in a minute,
// nor more tokens than the team's, and rejected calls use up nothing.
func TestRateLimitsHoldOverReplicas(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	rpm, tpm := int64(30), int64(100)
	var admitted, refused atomic.Int64
	perMinute := map[time.Time]*atomic.Int64{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		w, stop := startWriter(t, db, settings)
		defer stop()
		for range 4 {
			wg.Go(func() {
				for range 10 {
					r := request("k", "team")
					claims := append(ofKey("k", ledger.Limits{RPM: &rpm}), ofTeam("team", ledger.Limits{TPM: &tpm})...)
					ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 1, Tokens: 5, Claims: claims})
					if _, ok := errors.AsType[*ledger.Refusal](err); ok {
						refused.Add(1)
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					admitted.Add(1)
					s := settlement(r, 1) // three tokens
					if err := ticket.Settle(t.Context(), s); err != nil {
						t.Error(err)
					}
					mu.Lock()
					m := perMinute[s.EndedAt.Truncate(time.Minute)]
					if m == nil {
						m = &atomic.Int64{}
						perMinute[s.EndedAt.Truncate(time.Minute)] = m
					}
					mu.Unlock()
					m.Add(1)
				}
			})
		}
	}
	wg.Wait()
	// The test may run over the end of a minute; then two minutes' worth is right.
	if most := rpm * int64(len(perMinute)); admitted.Load() > most || admitted.Load() < 20 || refused.Load() == 0 {
		t.Errorf("%d admitted of at most %d, %d refused", admitted.Load(), most, refused.Load())
	}
	auditClean(t, New(db))
}

func TestALimitOnOneModelLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	defer stop()
	ask := func(model string, hold, cost money.NanoUSD) error {
		r := request("k", "team")
		r.ModelGroup = model
		a := &ledger.Admission{Request: r, Hold: hold}
		for _, kind := range []string{ledger.KindKeyModel, ledger.KindTeamModel} {
			owner := map[string]string{ledger.KindKeyModel: "k", ledger.KindTeamModel: "team"}[kind]
			if pricing.Bare(model) == "m1" {
				a.Claims = append(a.Claims, ledger.Claim{Account: ledger.AccountID{Kind: kind, ID: owner, Model: "m1"}, Who: kind, Limits: budget(100)})
			}
		}
		ticket, err := w.Admit(t.Context(), a)
		if err != nil {
			return err
		}
		return ticket.Settle(t.Context(), settlement(r, cost))
	}
	for i, step := range []struct {
		model      string
		hold, cost money.NanoUSD
		admitted   bool
	}{
		{"m1", 60, 60, true}, {"anthropic/m1", 41, 0, false}, {"m2", 1000, 1000, true}, {"anthropic/m1", 40, 40, true}, {"m1", 1, 0, false},
	} {
		err := ask(step.model, step.hold, step.cost)
		if _, refused := errors.AsType[*ledger.Refusal](err); (err == nil) != step.admitted || err != nil && !refused {
			t.Errorf("step %d: %v, want admitted %v", i, err, step.admitted)
		}
	}
	auditClean(t, New(db))
}

// TestAWindowThatComesLaterCountsWhatItHolds adds windows to an account that has
// spent before.
func TestAWindowThatComesLaterCountsWhatItHolds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	defer stop()
	for range 3 {
		r := request("k", "team")
		ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 30})
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.Settle(t.Context(), settlement(r, 30)); err != nil {
			t.Fatal(err)
		}
	}
	for _, window := range []string{"24h", "30d", "2h"} {
		r := request("k", "team")
		_, err := w.Admit(t.Context(), &ledger.Admission{
			Request: r, Hold: 11, Claims: ofTeam("team", ledger.Limits{Budgets: []ledger.Budget{{Limit: 100, Window: window}}}),
		})
		if refusal, ok := errors.AsType[*ledger.Refusal](err); !ok || !refusal.Final {
			t.Errorf("%s: %v, want a refusal: 90 of 100 were spent", window, err)
		}
	}
}
