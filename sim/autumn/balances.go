package autumn

import (
	"net/http"
	"time"
)

type success struct {
	Success bool `json:"success"`
}

// ofFeature finds the customer that a request about a balance names.
func (s *Server) ofFeature(f *fields) (*customer, error) {
	id, feature := f.need("customer_id"), f.need("feature_id")
	if f.err != nil {
		return nil, f.err
	}
	if feature != s.opts.FeatureID {
		return nil, featureNotFound(feature)
	}
	cust, ok := s.state.customers[id]
	if !ok {
		return nil, customerNotFound(id)
	}
	return cust, nil
}

// setUsage serves POST /v1/usage: it sets, it does not add.
func (s *Server) setUsage(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fields{object: c.body}
	var value Amount
	if !f.read("value", &value) && f.err == nil {
		f.err = invalidInputs("value: is required")
	}
	cust, err := s.ofFeature(&f)
	if err != nil {
		return reply{}, err
	}
	if cust.balance != nil && len(cust.balance.rows) > 0 {
		cust.balance.take(value - cust.balance.usage())
	}
	return reply{http.StatusOK, success{true}}, nil
}

// updateBalance serves POST /v1/balances/update. What it adds or sets does not
// show in granted − usage: it moves what remains.
func (s *Server) updateBalance(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fields{object: c.body}
	var remaining, usage, add Amount
	hasRemaining, hasUsage, hasAdd := f.read("remaining", &remaining), f.read("usage", &usage), f.read("add_to_balance", &add)
	cust, err := s.ofFeature(&f)
	if err != nil {
		return reply{}, err
	}
	if n := count(hasRemaining, hasUsage, hasAdd); n != 1 {
		return reply{}, invalidInputs("exactly one of remaining, usage and add_to_balance is required")
	}
	row := s.lasting(cust)
	if id, ok := f.text("balance_id"); ok {
		if row = cust.balance.row(id); row == nil {
			return reply{}, invalidInputs("balance_id: %s is unknown", id)
		}
	}
	switch {
	case hasRemaining:
		row.granted = remaining + row.usage
	case hasUsage:
		row.usage = usage
	default:
		row.granted += add
	}
	return reply{http.StatusOK, success{true}}, nil
}

func count(given ...bool) (n int) {
	for _, g := range given {
		if g {
			n++
		}
	}
	return n
}

// createBalance serves POST /v1/balances/create: a grant of its own, with a reset
// or an end.
func (s *Server) createBalance(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fields{object: c.body}
	var granted Amount
	f.read("included_grant", &granted)
	row := grantRow{granted: granted}
	var millis int64
	if f.read("expires_at", &millis) {
		row.expires = time.UnixMilli(millis)
	}
	var every struct {
		Interval string `json:"interval"`
	}
	if f.read("reset", &every) {
		span, ok := intervals[every.Interval]
		if !ok && f.err == nil {
			f.err = invalidInputs("reset.interval: is unknown")
		}
		row.every, row.resetsAt = span, s.now().Add(span)
	}
	cust, err := s.ofFeature(&f)
	if err != nil {
		return reply{}, err
	}
	if id, ok := f.text("balance_id"); ok {
		if row.id = id; cust.balance.row(id) != nil {
			return reply{}, invalidInputs("balance_id: %s exists", id)
		}
	}
	if id, ok := f.text("entity_id"); ok {
		e := cust.entities[id]
		if e == nil {
			return reply{}, entityNotFound(id)
		}
		if row.id == "" {
			row.id = s.state.id("bal")
		}
		e.balance.rows = append(e.balance.rows, &row)
		return reply{http.StatusOK, success{true}}, nil
	}
	s.addRow(cust, row)
	return reply{http.StatusOK, success{true}}, nil
}

// intervals are the resets that a grant may have; a month is 30 days here.
var intervals = map[string]time.Duration{
	"hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour,
}

// row finds a row by its id. Nil: there is none.
func (b *balance) row(id string) *grantRow {
	if b == nil {
		return nil
	}
	for _, r := range b.rows {
		if r.id == id {
			return r
		}
	}
	return nil
}

// recalculate serves POST /v1/balances.recalculate: usage becomes what the events
// say. Those that were lost are lost then for the balance too.
func (s *Server) recalculate(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fields{object: c.body}
	cust, err := s.ofFeature(&f)
	if err != nil {
		return reply{}, err
	}
	var sum Amount
	for _, e := range s.state.events {
		for _, d := range e.Deductions {
			if e.CustomerID == cust.id && cust.balance.row(d.BalanceID) != nil {
				sum += d.Value
			}
		}
	}
	if cust.balance != nil && len(cust.balance.rows) > 0 {
		cust.balance.take(sum - cust.balance.usage())
	}
	return reply{http.StatusOK, success{true}}, nil
}

// finalize serves POST /v1/balances.finalize: confirm keeps the deduction under a
// lock, or makes it override_value; release gives it back. Either way the receipt
// is gone, and the lock's id may be used again.
func (s *Server) finalize(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fields{object: c.body}
	lock, action := f.need("lock_id"), f.need("action")
	var final Amount
	overrides := f.read("override_value", &final)
	switch {
	case f.err != nil:
		return reply{}, f.err
	case action != "confirm" && action != "release" || action == "release" && overrides:
		return reply{}, invalidInputs("action: must be confirm, which may override, or release")
	}
	if until, ok := s.state.receipts[lock]; !ok || !s.now().Before(until) {
		return reply{}, errorf(http.StatusNotFound, "lock_not_found", "Lock %s not found", lock)
	}
	delete(s.state.receipts, lock)
	for i, held := range s.state.journal {
		if held.lockID != lock {
			continue
		}
		s.state.journal[i].lockID = "" // the next one under this id is another one
		if action == "confirm" && !overrides {
			continue
		}
		if cust := s.state.customers[held.customerID]; cust != nil && cust.balance != nil {
			cust.balance.take(final - held.value)
			s.state.unbook(held)
			s.state.book(held.customerID, held.key, final)
			s.state.journal[i].value = final
		}
	}
	return reply{http.StatusOK, success{true}}, nil
}
