package autumn

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// kept is what a file remembers of a server: customers, their balances, lock
// receipts and what was applied. Events and claimed idempotency keys are not.
type kept struct {
	Customers map[string]keptCustomer `json:"customers"`
	Receipts  map[string]time.Time    `json:"receipts"`
	Applied   map[string]*Applied     `json:"applied"`
	ByKey     map[string]*Applied     `json:"by_key"`
	NextID    int                     `json:"next_id"`
}

type keptCustomer struct {
	Name, Email, Fingerprint *string
	Metadata                 json.RawMessage
	CreatedAt                time.Time
	Card                     string
	Plan                     string    // empty: the default one
	Rows                     []keptRow // none: no balance
	// Of files that were written when a customer had one row.
	BalanceID      string
	Granted, Usage Amount
}

type keptRow struct {
	ID                string
	Granted, Usage    Amount
	Every             time.Duration
	ResetsAt, Expires time.Time
}

// Keep makes the server remember in a file, and first recall what the file
// holds. The file is written after each change, before its answer is sent.
func (s *Server) Keep(file string) error {
	text, err := os.ReadFile(file) //nolint:gosec // the caller's own file
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("recall simulated Autumn: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file = file
	if err != nil {
		return nil // there is nothing to recall yet
	}
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return fmt.Errorf("recall simulated Autumn from %s: %w", file, err)
	}
	st := newState()
	for id, c := range k.Customers {
		customer := &customer{id: id, name: c.Name, email: c.Email, fingerprint: c.Fingerprint, metadata: c.Metadata, createdAt: c.CreatedAt, plan: cmp.Or(c.Plan, defaultPlan), card: c.Card}
		if c.BalanceID != "" {
			c.Rows = append(c.Rows, keptRow{ID: c.BalanceID, Granted: c.Granted, Usage: c.Usage})
		}
		for _, r := range c.Rows {
			if customer.balance == nil {
				customer.balance = &balance{}
			}
			customer.balance.rows = append(customer.balance.rows, &grantRow{id: r.ID, granted: r.Granted, usage: r.Usage, every: r.Every, resetsAt: r.ResetsAt, expires: r.Expires})
		}
		st.customers[id] = customer
	}
	for id, until := range k.Receipts {
		st.receipts[id] = until
	}
	for id, a := range k.Applied {
		st.applied[id] = a
	}
	for id, a := range k.ByKey {
		st.byKey[id] = a
	}
	st.nextID = k.NextID
	s.state = st
	return nil
}

// save writes the file, whole or not at all.
func (s *Server) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" {
		return nil
	}
	k := kept{Customers: map[string]keptCustomer{}, Receipts: s.state.receipts, Applied: s.state.applied, ByKey: s.state.byKey, NextID: s.state.nextID}
	for id, c := range s.state.customers {
		kc := keptCustomer{Name: c.name, Email: c.email, Fingerprint: c.fingerprint, Metadata: c.metadata, CreatedAt: c.createdAt}
		kc.Card, kc.Plan = c.card, c.plan
		if c.balance != nil {
			for _, r := range c.balance.rows {
				kc.Rows = append(kc.Rows, keptRow{r.id, r.granted, r.usage, r.every, r.resetsAt, r.expires})
			}
		}
		k.Customers[id] = kc
	}
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if err := os.WriteFile(s.file+".new", text, 0o600); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	return os.Rename(s.file+".new", s.file)
}
