package autumn

import (
	"net/http"
)

type checkBody struct {
	Allowed         bool         `json:"allowed"`
	CustomerID      string       `json:"customer_id"`
	RequiredBalance Amount       `json:"required_balance"`
	Balance         *balanceBody `json:"balance"`
	Flag            any          `json:"flag"`
}

// oldCheckBody is a check's answer up to 1.2.
type oldCheckBody struct {
	Allowed         bool   `json:"allowed"`
	CustomerID      string `json:"customer_id"`
	FeatureID       string `json:"feature_id"`
	RequiredBalance Amount `json:"required_balance"`
	Code            string `json:"code"`
	Unlimited       bool   `json:"unlimited"`
	Balance         Amount `json:"balance"`
}

// check serves POST /v1/check. Not allowed is a 200. With send_event it deducts
// all or nothing; a body idempotency key is ignored, so that a repeated one
// deducts again.
func (s *Server) check(c *call) (reply, error) {
	f := fields{object: c.body}
	req := trackRequest{
		customerID: f.need("customer_id"), featureID: f.need("feature_id"), value: amountUnit,
		timestamp: s.opts.Now(), overflow: true, properties: []byte("{}"), key: c.r.Header.Get("idempotency-key"),
	}
	f.read("required_balance", &req.value)
	if f.read("properties", &map[string]any{}) {
		req.properties = f.object["properties"]
	}
	var send bool
	f.read("send_event", &send)
	switch {
	case f.err != nil:
		return reply{}, f.err
	case c.body.has("lock"):
		return reply{}, invalidInputs("lock: the simulator has no locks on check")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.featureID != s.opts.FeatureID {
		return reply{}, featureNotFound(req.featureID)
	}
	cust, err := s.customerFor(req.customerID, c.version)
	if err != nil {
		return reply{}, err
	}
	allowed := cust.balance != nil && cust.balance.remaining() >= req.value
	if allowed && send {
		deductions, err := s.deduct(cust, req, false)
		if err != nil {
			return reply{}, err
		}
		s.record(req, deductions)
	}
	return s.checkReply(c.version, req, allowed, cust.balance), nil
}

func (s *Server) checkReply(v version, req trackRequest, allowed bool, b *balance) reply {
	if v == v12 {
		old := oldCheckBody{
			Allowed: allowed, CustomerID: req.customerID, FeatureID: req.featureID,
			RequiredBalance: req.value, Code: "feature_found",
		}
		if b != nil {
			old.Balance = max(b.remaining(), 0)
		}
		return reply{http.StatusOK, old}
	}
	return reply{http.StatusOK, checkBody{
		Allowed: allowed, CustomerID: req.customerID, RequiredBalance: req.value, Balance: s.balanceBody(b),
	}}
}
