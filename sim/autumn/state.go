package autumn

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// state is what the server remembers. Server.mu guards it; a deduction and its
// lock receipt change under one hold of it, which makes them atomic as they are
// in Autumn's script.
type state struct {
	customers map[string]*customer
	receipts  map[string]time.Time // lock id → until when it is taken
	events    []event
	applied   map[string]*Applied // by customer
	byKey     map[string]*Applied // by lock id or idempotency key
	queue     []queued            // accepted, not yet deducted
	delivered map[int]bool        // messages of the queue that were deducted
	journal   []change            // what a loss of memory can undo, oldest first
	nextID    int
}

func newState() state {
	return state{
		customers: map[string]*customer{},
		receipts:  map[string]time.Time{},
		applied:   map[string]*Applied{},
		byKey:     map[string]*Applied{},
		delivered: map[int]bool{},
	}
}

// id returns a new identifier; they are the same from run to run.
func (st *state) id(prefix string) string {
	st.nextID++
	return fmt.Sprintf("%s_%06d", prefix, st.nextID)
}

type customer struct {
	id          string
	name        *string
	email       *string
	fingerprint *string
	metadata    json.RawMessage
	createdAt   time.Time
	balance     *balance // nil: no plan grants the feature
	entities    map[string]*entity
	// spendLimit is how far below zero an overflow may go. Nil: without end.
	spendLimit *Amount
	plan       string // one of defaultPlan and biggerPlan
	card       string // one of the Card constants; empty: none
	invoices   []invoice
}

// balance is a customer's credits. Its rows are deducted from in their order.
type balance struct {
	rows      []*grantRow
	unlimited bool
}

// grantRow is one row of credits. Only the last one goes below zero.
type grantRow struct {
	id       string
	granted  Amount
	usage    Amount
	every    time.Duration // between two resets; zero: never
	resetsAt time.Time
	expires  time.Time // zero: never
}

func (r *grantRow) remaining() Amount { return r.granted - r.usage }

func (b *balance) granted() (sum Amount) {
	for _, r := range b.rows {
		sum += r.granted
	}
	return sum
}

func (b *balance) usage() (sum Amount) {
	for _, r := range b.rows {
		sum += r.usage
	}
	return sum
}

// remaining is signed: negative after an overflow.
func (b *balance) remaining() Amount { return b.granted() - b.usage() }

// part is what was taken from one row.
type part struct {
	row   *grantRow
	value Amount
}

// take spreads value over the rows: what is left of each, shortest reset first,
// and the rest of it on the last one. A refund fills the last row first.
func (b *balance) take(value Amount) (parts []part) {
	move := func(i int, by Amount) {
		if by != 0 {
			b.rows[i].usage += by
			parts = append(parts, part{b.rows[i], by})
		}
	}
	last := len(b.rows) - 1
	for i := last; i >= 0 && value < 0; i-- {
		back := max(value, -max(b.rows[i].usage, 0))
		if i == 0 {
			back = value
		}
		move(i, back)
		value -= back
	}
	for i := 0; i <= last && value > 0; i++ {
		some := min(value, max(b.rows[i].remaining(), 0))
		if i == last {
			some = value
		}
		move(i, some)
		value -= some
	}
	return parts
}

// refresh begins the cycles that are over and drops what has expired.
func (b *balance) refresh(now time.Time) {
	b.rows = slices.DeleteFunc(b.rows, func(r *grantRow) bool { return !r.expires.IsZero() && !now.Before(r.expires) })
	for _, r := range b.rows {
		for r.every > 0 && !now.Before(r.resetsAt) {
			r.usage, r.resetsAt = 0, r.resetsAt.Add(r.every)
		}
	}
}

// nextReset is the end of the shortest cycle; zero: there is none.
func (b *balance) nextReset() time.Time {
	var next time.Time
	for _, r := range b.rows {
		if r.every > 0 && (next.IsZero() || r.resetsAt.Before(next)) {
			next = r.resetsAt
		}
	}
	return next
}

// event is one recorded track.
type event struct {
	ID         string          `json:"id"`
	Timestamp  int64           `json:"timestamp"` // unix milliseconds
	CustomerID string          `json:"customer_id"`
	FeatureID  string          `json:"feature_id"`
	EventName  string          `json:"event_name,omitempty"`
	Value      Amount          `json:"value"`
	Properties json.RawMessage `json:"properties"`
	Deductions []deduction     `json:"deductions"`

	recordedAt time.Time
}

type deduction struct {
	FeatureID string `json:"feature_id"`
	BalanceID string `json:"balance_id"`
	Value     Amount `json:"value"`
}

// Applied is what was really deducted, refunds subtracted.
type Applied struct {
	CustomerID string `json:"customer_id,omitempty"` // only by key
	Credits    Amount `json:"credits"`
	Calls      int    `json:"calls"` // deductions other than zero
}

// create makes a customer with the default plan.
func (s *Server) create(id string) *customer {
	c := &customer{id: id, metadata: json.RawMessage("{}"), createdAt: s.now(), plan: defaultPlan, card: s.opts.Card}
	s.state.customers[id] = c
	if s.opts.DefaultGrant > 0 {
		s.grant(c, Credits(s.opts.DefaultGrant))
	}
	return c
}

// grant adds to the row that never ends.
func (s *Server) grant(c *customer, credits Amount) {
	s.lasting(c).granted += credits
}

// lasting is a customer's row without resets, made if need be.
func (s *Server) lasting(c *customer) *grantRow {
	if c.balance == nil {
		c.balance = &balance{}
	}
	for _, r := range c.balance.rows {
		if r.every == 0 && r.expires.IsZero() {
			return r
		}
	}
	return s.addRow(c, grantRow{})
}

// addRow adds a row in its place: shortest reset first, the lasting one last.
func (s *Server) addRow(c *customer, row grantRow) *grantRow {
	if c.balance == nil {
		c.balance = &balance{}
	}
	if row.id == "" {
		row.id = s.state.id("bal")
	}
	c.balance.rows = append(c.balance.rows, &row)
	rank := func(r *grantRow) time.Duration {
		if r.every > 0 {
			return r.every
		}
		return 1<<63 - 1
	}
	slices.SortStableFunc(c.balance.rows, func(a, b *grantRow) int { return cmp.Compare(rank(a), rank(b)) })
	return &row
}

// customerFor returns the customer of a track or check. From 2.1 on these do not
// create one.
func (s *Server) customerFor(id string, v version) (*customer, error) {
	if c, ok := s.state.customers[id]; ok {
		if c.balance != nil {
			c.balance.refresh(s.now())
		}
		return c, nil
	}
	if v == v12 || s.opts.AutoCreateCustomers {
		return s.create(id), nil
	}
	return nil, customerNotFound(id)
}

func customerNotFound(id string) error {
	return errorf(404, "customer_not_found", "Customer %s not found", id)
}

// book adds a deduction to the oracle.
func (st *state) book(customerID, key string, value Amount) {
	if value == 0 {
		return
	}
	add(st.applied, customerID, "", value)
	if key != "" {
		add(st.byKey, key, customerID, value)
	}
}

func add(to map[string]*Applied, key, customerID string, value Amount) {
	if to[key] == nil {
		to[key] = &Applied{CustomerID: customerID}
	}
	to[key].Credits += value
	to[key].Calls++
}
