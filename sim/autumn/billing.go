package autumn

import (
	"net/http"
)

// What a customer pays with.
const (
	CardGood     = "good"     // is charged
	CardDeclined = "declined" // the bank says no: 400
	CardAction   = "action"   // its owner must confirm: 200 with required_action
)

// invoice is a purchase that was asked for.
type invoice struct {
	PlanIDs   []string `json:"plan_ids"`
	StripeID  string   `json:"stripe_id"`
	Status    string   `json:"status"`
	Total     Amount   `json:"total"`
	Currency  string   `json:"currency"`
	CreatedAt int64    `json:"created_at"` // unix milliseconds
}

// attachBody is the answer to attach. A payment_url means that nobody has paid.
type attachBody struct {
	CustomerID     string   `json:"customer_id"`
	Invoice        *invoice `json:"invoice"`
	PaymentURL     *string  `json:"payment_url"`
	RequiredAction any      `json:"required_action"`
}

// attach sells credits of the one-off plan and charges the card on file. Without
// redirect_mode "if_required" it always answers with a page to pay on.
func (s *Server) attach(c *call) (reply, error) {
	f := fields{object: c.body}
	id, plan := f.need("customer_id"), ""
	if !f.read("plan_id", &plan) {
		f.read("product_id", &plan)
	}
	var mode string
	f.read("redirect_mode", &mode)
	var options []struct {
		FeatureID string `json:"feature_id"`
		Quantity  int64  `json:"quantity"`
	}
	f.read("options", &options)
	if f.err != nil {
		return reply{}, f.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cust, ok := s.state.customers[id]
	switch {
	case !ok:
		return reply{}, customerNotFound(id)
	case plan != s.opts.TopUpPlan:
		return reply{}, errorf(http.StatusNotFound, "product_not_found", "Product %s not found", plan)
	case len(options) != 1 || options[0].FeatureID != s.opts.FeatureID || options[0].Quantity <= 0:
		return reply{}, invalidInputs("options: want the quantity of %s", s.opts.FeatureID)
	}
	body := attachBody{CustomerID: id}
	page := "https://checkout.example/" + id
	switch {
	case mode != "if_required" || cust.card == "":
		body.PaymentURL = &page
		return reply{http.StatusOK, body}, nil
	case cust.card == CardAction:
		body.RequiredAction = map[string]string{"code": "3ds_required", "reason": "the card's owner must confirm"}
		body.PaymentURL = &page
		return reply{http.StatusOK, body}, nil
	case cust.card == CardDeclined:
		return reply{}, errorf(http.StatusBadRequest, "payment_failed", "Your card was declined.")
	}
	paid := invoice{
		PlanIDs: []string{plan}, StripeID: s.state.id("in"), Status: "paid", Total: Credits(options[0].Quantity) / 100,
		Currency: "usd", CreatedAt: s.now().UnixMilli(),
	}
	cust.invoices = append(cust.invoices, paid)
	s.grant(cust, Credits(options[0].Quantity))
	body.Invoice = &paid
	s.send(cust, "billing.updated", map[string]any{"customer_id": id})
	return reply{http.StatusOK, body}, nil
}

// checkout answers with a page to pay on, always.
func (s *Server) checkout(c *call) (reply, error) {
	f := fields{object: c.body}
	id := f.need("customer_id")
	if f.err != nil {
		return reply{}, f.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.state.customers[id]; !ok {
		return reply{}, customerNotFound(id)
	}
	return reply{http.StatusOK, map[string]any{"customer_id": id, "url": "https://checkout.example/" + id, "lines": []any{}}}, nil
}
