package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/alert"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"
)

// TestOneWarningAWindowOverAllReplicas lets two replicas warn of the same account
// again and again: the webhook, which fails at first, hears of each window once.
func TestOneWarningAWindowOverAllReplicas(t *testing.T) {
	t.Parallel()
	db := store.New(pgtest.New(t, store.Schema, store.Migrations))
	got := make(chan map[string]any, 100)
	var calls atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		got <- body
	}))
	t.Cleanup(hook.Close)
	ctx, cancel := context.WithCancel(t.Context())
	var sent atomic.Int64
	ended := make(chan error, 2)
	var senders []*alert.Sender
	for range 2 {
		s := alert.New(db, hook.URL, func(ledger.Warning) { sent.Add(1) }, func(what string, err error) { t.Errorf("%s: %v", what, err) })
		senders = append(senders, s)
		go func() { ended <- s.Run(ctx) }()
	}
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for n := range 20 {
		for _, s := range senders {
			s.Warn(ledger.Warning{Account: ledger.AccountID{Kind: "key", ID: "k"}, Spent: 100, Soft: 90, Window: noon.Add(time.Duration(n/10) * time.Hour)})
		}
	}
	windows := map[any]bool{}
	for range 2 {
		body := <-got
		windows[body["resets_at"]] = true
		if body["id"] != "k" || body["spent_nano_usd"] != "100" || body["event"] != "soft_budget_crossed" {
			t.Errorf("the webhook got %v", body)
		}
	}
	if !windows["2026-11-24T12:00:00Z"] || !windows["2026-11-24T13:00:00Z"] {
		t.Errorf("the webhook heard of the windows that end at %v", windows)
	}
	cancel()
	for range senders {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if sent.Load() != 2 || len(got) != 0 {
		t.Errorf("%d were due and %d more were sent, want 2 and none", sent.Load(), len(got))
	}
}

// refusing is a store that takes no claim at first.
type refusing struct {
	*store.Store
	left atomic.Int64
}

func (r *refusing) ClaimWarning(ctx context.Context, w ledger.Warning) (bool, error) {
	if r.left.Add(-1) >= 0 {
		return false, errors.New("Postgres is away")
	}
	return r.Store.ClaimWarning(ctx, w)
}

// TestAWarningThatCouldNotBeClaimedComesAgain loses Postgres when a warning comes: the
// next request of its account warns again.
func TestAWarningThatCouldNotBeClaimedComesAgain(t *testing.T) {
	t.Parallel()
	db := &refusing{Store: store.New(pgtest.New(t, store.Schema, store.Migrations))}
	db.left.Store(1)
	due, failed := make(chan ledger.Warning, 10), make(chan struct{}, 10)
	s := alert.New(db, "", func(w ledger.Warning) { due <- w }, func(string, error) { failed <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	warnings := []ledger.Warning{
		{Account: ledger.AccountID{Kind: "key", ID: "k"}, Spent: 100, Soft: 90, Window: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)},
		{Account: ledger.AccountID{Kind: ledger.KindModel, ID: "m"}},
	}
	for _, w := range warnings {
		s.Warn(w)
		<-failed
		s.Warn(w)
		if got := <-due; got != w {
			t.Errorf("due %+v, want %+v", got, w)
		}
		db.left.Store(1)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestOneWarningAModelWithoutAPrice asks for models that have no price, one of them
// again and again; a sandbox that invents names does not flood the webhook.
func TestOneWarningAModelWithoutAPrice(t *testing.T) {
	t.Parallel()
	db := store.New(pgtest.New(t, store.Schema, store.Migrations))
	got := make(chan map[string]any, 300)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		got <- body
	}))
	t.Cleanup(hook.Close)
	due := make(chan ledger.Warning, 300)
	s := alert.New(db, hook.URL, func(w ledger.Warning) { due <- w }, func(what string, err error) { t.Errorf("%s: %v", what, err) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for n := range 150 {
		for range 3 {
			s.Warn(ledger.Warning{Account: ledger.AccountID{Kind: ledger.KindModel, ID: fmt.Sprintf("claude-invented-%03d", n)}})
		}
	}
	s.Warn(ledger.Warning{Account: ledger.AccountID{Kind: ledger.KindKey, ID: "k"}, Spent: 2, Soft: 1}) // the last, and not shut out
	for n := range 100 {
		want := map[string]any{"event": "model_unpriced", "model": fmt.Sprintf("claude-invented-%03d", n)}
		if body := <-got; !maps.Equal(body, want) {
			t.Errorf("the webhook got %v, want %v", body, want)
		}
	}
	if body := <-got; body["event"] != "soft_budget_crossed" || body["id"] != "k" {
		t.Errorf("after the models: %v", body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(due) != 101 {
		t.Errorf("%d were due", len(due))
	}
}
