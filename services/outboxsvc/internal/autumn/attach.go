package autumn

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// attachBody is what we read of the answer to an attach.
type attachBody struct {
	Code        string `json:"code"`
	Message     string `json:"message"`
	CheckoutURL string `json:"checkout_url"`
	PaymentURL  string `json:"payment_url"`
	Invoice     *struct {
		Status   string `json:"status"`
		StripeID string `json:"stripe_id"`
	} `json:"invoice"`
	RequiredAction json.RawMessage `json:"required_action"`
}

// Buy implements relay.Sink: it attaches the plan of top-ups with as many credits
// as are wanted, and charges the card on file. Only an invoice that is paid is
// a success: a URL means that nobody has paid, and an error may come after the
// money has gone.
func (c *Client) Buy(ctx context.Context, t relay.TopUp) relay.Purchase {
	switch {
	case c.opt.TopUpPlan == "":
		return relay.Purchase{Outcome: relay.Rejected, Detail: "AUTUMN_TOP_UP_PLAN is not set"}
	case t.AmountNanoUSD <= 0 || t.AmountNanoUSD%money.Credit != 0:
		return relay.Purchase{Outcome: relay.Rejected, Detail: "the amount is not whole credits"}
	}
	if t.Unsure {
		paid, err := c.paid(ctx, t)
		switch {
		case err != nil:
			return relay.Purchase{Outcome: relay.Unsure, Detail: "an earlier attempt may have been paid: " + fault.Text(err)}
		case paid != "":
			return relay.Purchase{Outcome: relay.Paid, Detail: "invoice " + paid, InvoiceID: paid}
		case t.LookOnly:
			return relay.Purchase{Outcome: relay.Unsure, Detail: "an earlier attempt may have been paid, and has no invoice so far"}
		}
	}
	return c.purchase(c.call(ctx, http.MethodPost, "/v1/billing.attach", map[string]any{
		"customer_id": t.TeamID, "plan_id": c.opt.TopUpPlan, "redirect_mode": "if_required",
		"options":  []map[string]any{{"feature_id": c.opt.FeatureID, "quantity": int64(t.AmountNanoUSD / money.Credit)}},
		"metadata": map[string]string{propertyTopUp: t.TopUpID},
	}, func(h http.Header) { h.Set("Idempotency-Key", c.prefix()+"topup:"+t.TopUpID) }))
}

// purchase says what an answer to an attach proves.
func (c *Client) purchase(r wire.Response) relay.Purchase {
	p := relay.Purchase{Outcome: relay.Unsure, Detail: r.Failure, RetryAfter: r.RetryAfter}
	var body attachBody
	switch {
	case r.NeverSent:
		p.Outcome = relay.NotDone
		return p
	case r.Failure != "":
		return p
	case r.Status == http.StatusTooManyRequests: // before any work, or another billing write holds the customer
		p.Outcome, p.Detail = relay.NotDone, "429: too many billing writes"
		return p
	case !wire.Decode(r.Body, &body):
		p.Detail = fmt.Sprintf("%d and a body that is not Autumn's", r.Status)
		return p
	}
	p.Detail = c.clean(fmt.Sprintf("%d %s: %s", r.Status, body.Code, body.Message))
	action := len(body.RequiredAction) > 0 && string(body.RequiredAction) != "null"
	switch {
	case r.Status == http.StatusOK && (body.CheckoutURL != "" || body.PaymentURL != "" || action):
		p.Outcome, p.Detail = relay.Declined, "nobody has paid: the team has no card that can be charged, or must confirm"
	case r.Status == http.StatusOK && body.Invoice != nil && body.Invoice.Status == "paid":
		p.Outcome, p.InvoiceID = relay.Paid, c.clean(body.Invoice.StripeID)
		p.Detail = "invoice " + p.InvoiceID
	case r.Status == http.StatusOK && body.Invoice != nil && body.Invoice.Status != "":
		p.Outcome, p.Detail = relay.Declined, "the invoice is "+c.clean(body.Invoice.Status)
	case r.Status == http.StatusBadRequest && declined(body.Code), r.Status == http.StatusPaymentRequired:
		p.Outcome = relay.Declined
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		p.Outcome = relay.NotDone
	case (r.Status == http.StatusBadRequest || r.Status == http.StatusNotFound) && body.Code != "":
		p.Outcome = relay.Rejected
	}
	return p
}

// declined says whether a code is a bank's no.
func declined(code string) bool {
	switch code {
	case "payment_failed", "card_declined", "stripe_card_declined", "pay_invoice_failed":
		return true
	}
	return false
}

// paid finds the invoice of an earlier attempt at a top-up: one of its plan since
// then that is no other's, since Autumn keeps no metadata with an invoice. Empty:
// there is none. One that the team has bought by itself meanwhile may be taken for
// it, and then the team has the credits that it needed.
func (c *Client) paid(ctx context.Context, t relay.TopUp) (string, error) {
	var customer struct {
		Invoices []struct {
			PlanIDs    []string `json:"plan_ids"`
			ProductIDs []string `json:"product_ids"`
			StripeID   string   `json:"stripe_id"`
			Status     string   `json:"status"`
			CreatedAt  int64    `json:"created_at"` // unix milliseconds
		} `json:"invoices"`
	}
	path := "/v1/customers/" + url.PathEscape(t.TeamID) + "?expand=invoices"
	if _, err := c.read(c.call(ctx, http.MethodGet, path, nil, nil), &customer); err != nil {
		return "", err
	}
	since := t.FirstSentAt.Add(-time.Minute).UnixMilli()
	for _, i := range customer.Invoices {
		for _, plan := range append(i.PlanIDs, i.ProductIDs...) {
			id := c.clean(i.StripeID)
			if plan == c.opt.TopUpPlan && i.Status == "paid" && i.CreatedAt >= since && !slices.Contains(t.Counted, id) {
				return id, nil
			}
		}
	}
	return "", nil
}
