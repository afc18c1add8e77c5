package autumn

import (
	"net/http"
	"time"
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
// all or nothing, and with a lock it holds the amount; a body idempotency key is
// ignored, so that a repeated one deducts again. One that takes over three seconds
// is answered 202, allowed, while the work goes on; under overload nothing does.
func (s *Server) check(c *call) (reply, error) {
	f := fields{object: c.body}
	req := trackRequest{
		customerID: f.need("customer_id"), featureID: f.need("feature_id"), value: amountUnit,
		timestamp: s.now(), overflow: true, properties: []byte("{}"), key: c.r.Header.Get("idempotency-key"),
	}
	f.read("required_balance", &req.value)
	if f.read("properties", &map[string]any{}) {
		req.properties = f.object["properties"]
	}
	var send bool
	f.read("send_event", &send)
	f.read("entity_id", &req.entityID)
	s.parseLock(&f, &req, s.now())
	if req.lockID != "" {
		req.key, send = req.lockID, true
	}
	if f.err != nil {
		return reply{}, f.err
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
	if req.entityID != "" && cust.entities[req.entityID] == nil {
		return reply{}, entityNotFound(req.entityID)
	}
	funds := cust.funds(req.entityID)
	allowed := funds != nil && (funds.unlimited || funds.remaining() >= req.value)
	if c.failsOpen(c.rule) || c.fault == FaultAccepted202Lost {
		if c.fault == FaultSlowApply && send && allowed {
			s.enqueue(req, c.rule)
		}
		return reply{http.StatusAccepted, checkBody{Allowed: true, CustomerID: req.customerID, RequiredBalance: req.value}}, nil
	}
	if allowed && send {
		deductions, err := s.deduct(cust, req, false)
		if err != nil {
			return reply{}, err
		}
		s.record(req, deductions)
	}
	return s.checkReply(c.version, req, allowed, funds), nil
}

// patience is how long a check without a lock may take.
const patience = 3 * time.Second

// failsOpen says whether a check takes so long that it is answered before its work
// is done.
func (c *call) failsOpen(rule Fault) bool {
	return rule.Fault == FaultSlowApply && time.Duration(rule.DelayMS)*time.Millisecond > patience &&
		canonicalPath(c.r.URL.Path) == "/v1/check" && !c.body.has("lock")
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
