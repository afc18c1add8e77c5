package autumn

import (
	"encoding/json"
	"fmt"
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
	nextID    int
}

func newState() state {
	return state{
		customers: map[string]*customer{},
		receipts:  map[string]time.Time{},
		applied:   map[string]*Applied{},
		byKey:     map[string]*Applied{},
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
}

// balance is one row of credits. Remaining is negative after an overflow.
type balance struct {
	id      string
	granted Amount
	usage   Amount
}

func (b *balance) remaining() Amount { return b.granted - b.usage }

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
	c := &customer{id: id, metadata: json.RawMessage("{}"), createdAt: s.opts.Now()}
	s.state.customers[id] = c
	if s.opts.DefaultGrant > 0 {
		s.grant(c, Credits(s.opts.DefaultGrant))
	}
	return c
}

func (s *Server) grant(c *customer, credits Amount) {
	if c.balance == nil {
		c.balance = &balance{id: s.state.id("bal")}
	}
	c.balance.granted += credits
}

// customerFor returns the customer of a track or check. From 2.1 on these do not
// create one.
func (s *Server) customerFor(id string, v version) (*customer, error) {
	if c, ok := s.state.customers[id]; ok {
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
