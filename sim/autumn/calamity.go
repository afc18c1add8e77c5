package autumn

import (
	"net/http"
	"time"
)

// queued is a track that was accepted and waits for the worker.
type queued struct {
	id  int // of the request: what the worker dedupes by
	req trackRequest
	key string // of an item of a batch, which the worker claims; empty: none
}

// change is a deduction that a loss of memory can undo.
type change struct {
	at         time.Time
	customerID string
	value      Amount
	lockID     string
	key        string
}

// enqueue leaves a track to the worker.
func (s *Server) enqueue(req trackRequest, rule Fault) { s.push(queued{req: req}, rule) }

func (s *Server) push(message queued, rule Fault) {
	s.state.nextID++
	message.id = s.state.nextID
	message.req.at = s.now().Add(time.Duration(rule.DelayMS) * time.Millisecond)
	s.state.queue = append(s.state.queue, message)
	if rule.Fault == FaultQueuedTwice {
		s.state.queue = append(s.state.queue, message)
	}
}

// work lets the queue's worker deduct what is due. A message that comes twice is
// deducted once; one that fails is gone, as in a dead letter queue.
func (s *Server) work() {
	var later []queued
	for _, m := range s.state.queue {
		if s.now().Before(m.req.at) {
			later = append(later, m)
			continue
		}
		cust, ok := s.state.customers[m.req.customerID]
		if !ok || s.state.delivered[m.id] {
			continue
		}
		s.state.delivered[m.id] = true
		if m.key != "" && !s.claims.take("track:"+m.key, s.now(), s.now().Add(s.opts.IdempotencyTTL)) {
			continue // a duplicate is dropped without a word
		}
		if deductions, err := s.deduct(cust, m.req, false); err == nil {
			s.record(m.req, deductions)
		}
	}
	s.state.queue = later
}

// stray is a request whose client is gone before it has arrived.
type stray struct {
	at   time.Time // when it arrives
	call *call
	do   handler
}

// delay keeps a request from arriving.
func (s *Server) delay(c *call, h handler, rule Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.fault, c.rule = "", Fault{} // nothing else befalls it
	s.stray = append(s.stray, stray{s.now().Add(time.Duration(rule.DelayMS) * time.Millisecond), c, h})
}

// arrive serves the requests whose time has come, and which nobody waits for.
func (s *Server) arrive() {
	s.mu.Lock()
	var due, later []stray
	for _, r := range s.stray {
		if s.now().Before(r.at) {
			later = append(later, r)
		} else {
			due = append(due, r)
		}
	}
	s.stray = later
	s.mu.Unlock()
	for _, r := range due {
		s.run(r.call, r.do, Fault{})
	}
}

// befall does what a rule does to the state before a request is served.
func (s *Server) befall(rule Fault, customerID string) {
	cust := s.state.customers[customerID]
	ago := s.now().Add(-time.Duration(rule.DelayMS) * time.Millisecond)
	switch rule.Fault {
	case FaultCycleReset:
		if cust != nil {
			cust.startCycle(s.now())
		}
	case FaultPlanChange:
		if cust != nil && cust.balance != nil {
			s.changePlan(cust)
		}
	case FaultCustomerDeleted:
		delete(s.state.customers, customerID)
	case FaultReceiptsCut:
		for _, c := range s.state.journal {
			if c.lockID != "" && c.at.Before(ago) {
				delete(s.state.receipts, c.lockID)
			}
		}
	case FaultMemoryLoss:
		s.forgetSince(ago)
	}
}

// startCycle sets usage back, and gives the balance a cycle if it has none, so
// that clients see when the new one ends.
func (c *customer) startCycle(now time.Time) {
	if c.balance == nil {
		return
	}
	const month = 30 * 24 * time.Hour
	for _, r := range c.balance.rows {
		r.usage = 0
		if r.every > 0 {
			r.resetsAt = now.Add(r.every)
		} else if len(c.balance.rows) == 1 {
			r.every, r.resetsAt = month, now.Add(month)
		}
	}
}

// Plans that a customer may be on.
const (
	defaultPlan = "default"
	biggerPlan  = "bigger"
)

// changePlan moves a customer to the plan that he is not on, which grants twice as
// much as the default one, or back. The plan's credits are another row then, with a
// cycle that begins now and nothing used; what was bought stays.
func (s *Server) changePlan(c *customer) {
	more := Credits(max(s.opts.DefaultGrant, 1))
	if c.plan == biggerPlan {
		c.plan, more = defaultPlan, -more
	} else {
		c.plan = biggerPlan
	}
	const month = 30 * 24 * time.Hour
	old := c.balance.rows[len(c.balance.rows)-1]
	*old = grantRow{id: s.state.id("bal"), granted: old.granted + more, every: month, resetsAt: s.now().Add(month)}
	s.send(c, "billing.updated", map[string]any{"tags": []string{"activated", "expired"}})
}

// forgetSince undoes deductions and receipts since an instant. The oracle follows,
// since what was lost is not deducted any more.
func (s *Server) forgetSince(since time.Time) {
	keep := s.state.journal[:0:0]
	for _, c := range s.state.journal {
		cust := s.state.customers[c.customerID]
		if c.at.Before(since) || cust == nil || cust.balance == nil {
			keep = append(keep, c)
			continue
		}
		cust.balance.take(-c.value)
		delete(s.state.receipts, c.lockID)
		s.state.unbook(c)
	}
	s.state.journal = keep
}

// unbook takes a deduction out of the oracle.
func (st *state) unbook(c change) {
	for _, a := range []*Applied{st.applied[c.customerID], st.byKey[c.key]} {
		if a != nil && c.value != 0 {
			a.Credits -= c.value
			a.Calls--
		}
	}
}

// renamed says whether the feature is gone for a request.
func renamed(c *call) error {
	if c.fault == FaultFeatureRenamed {
		return errorf(http.StatusNotFound, "feature_not_found", "Feature not found")
	}
	return nil
}
