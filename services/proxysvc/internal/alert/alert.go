// Package alert tells a webhook of soft budgets that are spent, once for each
// account and window, and of models that have no price, once for each; over all
// replicas.
package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Store remembers which warnings were given.
type Store interface {
	// ClaimWarning is true for the first who asks about a warning.
	ClaimWarning(ctx context.Context, w ledger.Warning) (bool, error)
}

// Sender sends warnings in the background.
type Sender struct {
	store Store
	url   string // empty: there is no webhook
	http  *http.Client
	due   func(ledger.Warning)
	note  func(what string, err error)
	queue chan ledger.Warning

	mu       sync.Mutex
	seen     map[ledger.Warning]bool
	unpriced int // of those seen
}

// New makes a sender. due is called for each warning that nobody gave before; note
// is told of trouble.
func New(store Store, url string, due func(ledger.Warning), note func(string, error)) *Sender {
	return &Sender{
		store: store, url: url, http: &http.Client{Timeout: 10 * time.Second}, due: due, note: note,
		queue: make(chan ledger.Warning, 1000), seen: map[ledger.Warning]bool{},
	}
}

// maxSeen bounds the memory of warnings that this replica has seen, and maxUnpriced
// the models among them: where a wildcard routes any name, sandboxes can invent some.
const (
	maxSeen     = 100_000
	maxUnpriced = 100
)

// Warn takes a warning. It does not wait; what was seen before is dropped.
func (s *Sender) Warn(w ledger.Warning) {
	once := w
	once.Spent = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[once] || w.Unpriced() && s.unpriced == maxUnpriced {
		return
	}
	select {
	case s.queue <- w:
		if len(s.seen) >= maxSeen {
			clear(s.seen)
		}
		s.seen[once] = true
		if w.Unpriced() {
			s.unpriced++
		}
	default: // the next request of the account warns again
	}
}

// forget takes back that a warning was seen.
func (s *Sender) forget(w ledger.Warning) {
	w.Spent = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[w] && w.Unpriced() {
		s.unpriced--
	}
	delete(s.seen, w)
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	for {
		select {
		case w := <-s.queue:
			if err := s.deliver(ctx, w); err != nil && ctx.Err() == nil {
				s.note("warn of "+subject(w), err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// attempts is how often a webhook is called before the warning is given up: it is
// in the metric and in the log all the same.
const attempts = 3

func (s *Sender) deliver(ctx context.Context, w ledger.Warning) error {
	first, err := s.store.ClaimWarning(ctx, w)
	if err != nil {
		s.forget(w) // the next request of the account warns again
		return err
	}
	if !first {
		return nil
	}
	s.due(w)
	if s.url == "" {
		return nil
	}
	for n := 1; ; n++ {
		if err = s.post(ctx, w); err == nil || n == attempts {
			return err
		}
		select {
		case <-time.After(time.Duration(n) * time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

func subject(w ledger.Warning) string {
	if w.Unpriced() {
		return "a model without a price"
	}
	return "a soft budget"
}

// body is {"event":"model_unpriced","model":"…"}, or {"event":"soft_budget_crossed",
// "kind":"key","id":"…","spent_nano_usd":"…","soft_budget_nano_usd":"…",
// "resets_at":"…"|null}.
func body(w ledger.Warning) map[string]any {
	if w.Unpriced() {
		return map[string]any{"event": "model_unpriced", "model": w.Account.ID}
	}
	b := map[string]any{
		"event": "soft_budget_crossed", "kind": w.Account.Kind, "id": w.Account.Name(), "resets_at": nil,
		"spent_nano_usd": fmt.Sprint(int64(w.Spent)), "soft_budget_nano_usd": fmt.Sprint(int64(w.Soft)),
	}
	if !w.Window.IsZero() {
		b["resets_at"] = w.Window.UTC().Format(time.RFC3339)
	}
	return b
}

func (s *Sender) post(ctx context.Context, w ledger.Warning) error {
	text, err := json.Marshal(body(w))
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	defer resp.Body.Close() // only its status counts
	if resp.StatusCode >= 300 {
		return fmt.Errorf("alert: the webhook answered %d", resp.StatusCode)
	}
	return nil
}
