package autumn

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// createCustomer serves get-or-create. The older route calls the customer's id
// "id", the newer one "customer_id"; the other name is ignored like any unknown
// field.
func (s *Server) createCustomer(idField string) handler {
	return func(c *call) (reply, error) {
		f := fields{object: c.body}
		id := f.need(idField)
		var asked customer
		f.read("name", &asked.name)
		f.read("email", &asked.email)
		f.read("fingerprint", &asked.fingerprint)
		if f.read("metadata", &map[string]any{}) {
			asked.metadata = f.object["metadata"]
		}
		if f.err != nil {
			return reply{}, f.err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		cust, exists := s.state.customers[id]
		if !exists {
			cust = s.create(id)
			cust.name, cust.email, cust.fingerprint = asked.name, asked.email, asked.fingerprint
			if asked.metadata != nil {
				cust.metadata = asked.metadata
			}
		}
		return reply{http.StatusOK, s.customerBody(cust, c.version)}, nil
	}
}

// getCustomer serves both reads.
func (s *Server) getCustomer(c *call) (reply, error) {
	id := c.r.PathValue("id")
	if id == "" {
		f := fields{object: c.body}
		if id = f.need("customer_id"); f.err != nil {
			return reply{}, f.err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cust, ok := s.state.customers[id]
	if !ok {
		return reply{}, customerNotFound(id)
	}
	if cust.balance != nil {
		cust.balance.refresh(s.now())
	}
	if c.version != v12 && slices.Contains(strings.Split(c.r.URL.Query().Get("expand"), ","), "invoices") {
		return reply{http.StatusOK, struct {
			customerBody
			Invoices []invoice `json:"invoices"`
		}{s.customerBody(cust, c.version).(customerBody), orEmpty(cust.invoices)}}, nil
	}
	return reply{http.StatusOK, s.customerBody(cust, c.version)}, nil
}

// customerHead is what all versions show of a customer.
type customerHead struct {
	ID          string          `json:"id"`
	Name        *string         `json:"name"`
	Email       *string         `json:"email"`
	CreatedAt   int64           `json:"created_at"` // unix milliseconds
	Fingerprint *string         `json:"fingerprint"`
	StripeID    *string         `json:"stripe_id"`
	Env         string          `json:"env"`
	Metadata    json.RawMessage `json:"metadata"`
}

// subscription is the default plan of a customer.
type subscription struct {
	PlanID    string `json:"plan_id"`
	Status    string `json:"status"`
	StartedAt int64  `json:"started_at"` // unix milliseconds
}

type customerBody struct {
	customerHead
	Subscriptions []any                  `json:"subscriptions"`
	Purchases     []any                  `json:"purchases"`
	Balances      map[string]balanceBody `json:"balances"`
	Flags         map[string]any         `json:"flags"`
}

// oldCustomerBody is a customer up to 1.2.
type oldCustomerBody struct {
	customerHead
	Products []any                     `json:"products"`
	Features map[string]oldBalanceBody `json:"features"`
}

func (s *Server) customerBody(c *customer, v version) any {
	head := customerHead{
		ID: c.id, Name: c.name, Email: c.email, CreatedAt: c.createdAt.UnixMilli(),
		Fingerprint: c.fingerprint, Env: s.opts.Env, Metadata: c.metadata,
	}
	if v == v12 {
		old := oldCustomerBody{head, []any{}, map[string]oldBalanceBody{}}
		if c.balance != nil {
			old.Features[s.opts.FeatureID] = s.oldBalanceBody(c.balance)
		}
		return old
	}
	body := customerBody{head, []any{}, []any{}, map[string]balanceBody{}, map[string]any{}}
	if s.opts.DefaultGrant > 0 {
		body.Subscriptions = []any{subscription{c.plan, "active", c.createdAt.UnixMilli()}}
	}
	if c.balance != nil {
		body.Balances[s.opts.FeatureID] = *s.balanceBody(c.balance)
	}
	return body
}

// balanceBody is a balance from 2.1 on. Remaining is floored at zero: after an
// overflow only usage tells the truth.
type balanceBody struct {
	FeatureID      string         `json:"feature_id"`
	Granted        Amount         `json:"granted"`
	Remaining      Amount         `json:"remaining"`
	Usage          Amount         `json:"usage"`
	Unlimited      bool           `json:"unlimited"`
	OverageAllowed bool           `json:"overage_allowed"`
	MaxPurchase    *Amount        `json:"max_purchase"`
	NextResetAt    *int64         `json:"next_reset_at"`
	Breakdown      []breakdownRow `json:"breakdown"`
}

type breakdownRow struct {
	ID            string `json:"id"`
	IncludedGrant Amount `json:"included_grant"`
	Remaining     Amount `json:"remaining"`
	Usage         Amount `json:"usage"`
}

func (s *Server) balanceBody(b *balance) *balanceBody {
	if b == nil {
		return nil
	}
	body := &balanceBody{
		FeatureID: s.opts.FeatureID, Granted: stored(b.granted()), Usage: stored(b.usage()), Unlimited: b.unlimited, Breakdown: []breakdownRow{},
	}
	for _, r := range b.rows {
		left := max(r.remaining(), 0) // each row is floored by itself
		body.Remaining += left
		body.Breakdown = append(body.Breakdown, breakdownRow{r.id, stored(r.granted), stored(left), stored(r.usage)})
	}
	body.Remaining = stored(body.Remaining)
	if next := b.nextReset(); !next.IsZero() {
		millis := next.UnixMilli()
		body.NextResetAt = &millis
	}
	return body
}

// oldBalanceBody is a balance up to 1.2.
type oldBalanceBody struct {
	ID             string `json:"id"`
	Type           string `json:"type"`
	Balance        Amount `json:"balance"`
	Usage          Amount `json:"usage"`
	IncludedUsage  Amount `json:"included_usage"`
	NextResetAt    *int64 `json:"next_reset_at"`
	Unlimited      bool   `json:"unlimited"`
	OverageAllowed bool   `json:"overage_allowed"`
}

func (s *Server) oldBalanceBody(b *balance) oldBalanceBody {
	return oldBalanceBody{
		ID: s.opts.FeatureID, Type: "static", Balance: max(b.remaining(), 0), Usage: b.usage(), IncludedUsage: b.granted(), Unlimited: b.unlimited,
	}
}
