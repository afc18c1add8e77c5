package autumn

import (
	"encoding/json"
	"net/http"
	"time"
)

// trackRequest is a checked track.
type trackRequest struct {
	customerID string
	entityID   string // empty: of the customer as a whole
	featureID  string
	eventName  string
	value      Amount
	properties json.RawMessage
	timestamp  time.Time
	overflow   bool
	reject     bool // all or nothing
	async      bool
	lockID     string
	lockUntil  time.Time
	key        string    // names the deduction in the oracle
	at         time.Time // when the queue's worker deducts it; zero: now
}

// when is the time at which a track is deducted. The worker is only looked after
// when a request comes, but does its work in time.
func (req trackRequest) when(now time.Time) time.Time {
	if !req.at.IsZero() {
		return req.at
	}
	return now
}

// track serves POST /v1/track. Its body may carry a second idempotency key,
// which is claimed apart from that of the header.
func (s *Server) track(c *call) (reply, error) {
	req, err := s.parseTrack(c)
	if err != nil {
		return reply{}, err
	}
	bodyKey, _ := c.body.text("idempotency_key")
	return s.once(c.rule, "track", bodyKey, func() reply {
		answer, err := s.apply(c, req)
		switch {
		case err != nil:
		case c.fault == FaultError500AfterApply: // here, so that the body's key is let go too
			err = errSimulated
		case c.fault == FaultError503AfterApply:
			err = errRedis
		}
		if err != nil {
			return s.failure(err)
		}
		return answer
	}), nil
}

func (s *Server) parseTrack(c *call) (trackRequest, error) {
	f := fields{object: c.body}
	now := s.now()
	if c.fault == FaultClockBehind {
		now = now.Add(-time.Duration(c.rule.DelayMS) * time.Millisecond)
	}
	req := trackRequest{customerID: f.need("customer_id"), value: amountUnit, properties: json.RawMessage("{}"), timestamp: now}
	hasFeature, hasEvent := f.read("feature_id", &req.featureID), f.read("event_name", &req.eventName)
	f.read("value", &req.value)
	f.read("entity_id", &req.entityID)
	f.read("async", &req.async)
	if f.read("properties", &map[string]any{}) {
		req.properties = f.object["properties"]
	}
	var millis int64
	if f.read("timestamp", &millis) {
		req.timestamp = time.UnixMilli(millis)
	}
	overage := "cap"
	f.read("overage_behavior", &overage)
	req.overflow, req.reject = overage == "overflow", overage == "reject"
	s.parseLock(&f, &req, now)
	req.key = oracleKey(c, req.lockID)
	switch {
	case f.err != nil:
		return trackRequest{}, f.err
	case hasFeature == hasEvent:
		return trackRequest{}, invalidInputs("exactly one of feature_id and event_name is required")
	case overage != "cap" && !req.overflow && !req.reject:
		return trackRequest{}, invalidInputs("overage_behavior: must be cap, overflow or reject")
	case req.reject && hasEvent:
		return trackRequest{}, invalidInputs("overage_behavior: reject does not go with event_name")
	case req.timestamp.After(now):
		return trackRequest{}, invalidInputs("timestamp: must not be in the future")
	}
	return req, nil
}

// parseLock reads lock. A receipt lives 24 hours, or an hour beyond expires_at.
func (s *Server) parseLock(f *fields, req *trackRequest, now time.Time) {
	var raw map[string]json.RawMessage
	if !f.read("lock", &raw) {
		return
	}
	lock := fields{object: raw}
	var enabled bool
	if !lock.read("enabled", &enabled) || !enabled {
		f.err = lock.err
		return
	}
	req.lockID = lock.need("lock_id")
	req.lockUntil = now.Add(lockTTL)
	var millis int64
	if lock.read("expires_at", &millis) {
		req.lockUntil = time.UnixMilli(millis).Add(time.Hour)
	}
	if lock.err == nil && len(req.lockID) > 256 {
		lock.err = invalidInputs("lock.lock_id: must be at most 256 characters")
	}
	f.err = lock.err
}

// oracleKey is what the oracle files a deduction under.
func oracleKey(c *call, lockID string) string {
	if lockID != "" {
		return lockID
	}
	if key := c.r.Header.Get("idempotency-key"); key != "" {
		return key
	}
	key, _ := c.body.text("idempotency_key")
	return key
}

// apply does a track: feature before customer, lock and deduction as one.
func (s *Server) apply(c *call, req trackRequest) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := renamed(c); err != nil {
		return reply{}, err
	}
	if err := s.resolveFeature(&req); err != nil {
		return reply{}, err
	}
	cust, err := s.customerFor(req.customerID, c.version)
	if err != nil {
		return reply{}, err
	}
	if req.entityID != "" && cust.entities[req.entityID] == nil {
		return reply{}, entityNotFound(req.entityID)
	}
	switch c.fault {
	case FaultAccepted202Lost:
		return s.trackReply(c.version, req, http.StatusAccepted, nil, nil), nil
	case FaultAccepted202Late, FaultQueuedTwice:
		s.enqueue(req, c.rule)
		return s.trackReply(c.version, req, http.StatusAccepted, nil, nil), nil
	case FaultNoBalance:
		return s.trackReply(c.version, req, http.StatusOK, nil, nil), nil
	case FaultFalseLock:
		if req.lockID != "" {
			return reply{}, errorf(http.StatusConflict, "lock_already_exists", "Lock %s already exists", req.lockID)
		}
	}
	if req.async {
		s.enqueue(req, c.rule)
		return s.trackReply(c.version, req, http.StatusAccepted, nil, nil), nil
	}
	deductions, err := s.deduct(cust, req, c.fault == FaultPartial)
	if err != nil {
		return reply{}, err
	}
	if c.fault != FaultEventLost {
		s.record(req, deductions)
	}
	s.alert(cust)
	return s.trackReply(c.version, req, http.StatusOK, cust.balance, deductions), nil
}

// resolveFeature checks the feature, or the event that stands for it.
func (s *Server) resolveFeature(req *trackRequest) error {
	switch {
	case req.eventName != "" && req.eventName == s.opts.EventName:
		req.featureID = s.opts.FeatureID
	case req.eventName != "":
		return errorf(http.StatusNotFound, "invalid_request", "Event %s not found", req.eventName)
	case req.featureID != s.opts.FeatureID:
		return featureNotFound(req.featureID)
	}
	return nil
}

func featureNotFound(id string) error {
	return errorf(http.StatusNotFound, "feature_not_found", "Feature %s not found", id)
}

// deduct changes the balance and writes the lock's receipt. A customer without
// a balance gets neither.
func (s *Server) deduct(cust *customer, req trackRequest, partial bool) ([]deduction, error) {
	b := cust.funds(req.entityID)
	if b == nil || len(b.rows) == 0 {
		return nil, nil
	}
	if until, taken := s.state.receipts[req.lockID]; req.lockID != "" && taken && req.when(s.now()).Before(until) {
		return nil, errorf(http.StatusConflict, "lock_already_exists", "Lock %s already exists", req.lockID)
	}
	value := req.value
	if partial {
		value /= 2
	}
	switch {
	case req.reject && !b.unlimited && b.remaining() < value:
		return nil, errorf(http.StatusBadRequest, "insufficient_balance", "Insufficient balance of %s", req.featureID)
	case !req.overflow:
		value = capped(b, value)
	case cust.spendLimit != nil: // money clamps even an overflow
		value = min(value, max(b.remaining()+*cust.spendLimit, 0))
	}
	s.state.journal = append(s.state.journal, change{s.now(), cust.id, value, req.lockID, req.key})
	parts := b.take(value)
	if req.lockID != "" {
		s.state.receipts[req.lockID] = req.lockUntil
	}
	s.state.book(cust.id, req.key, value)
	var deductions []deduction
	for _, p := range parts {
		deductions = append(deductions, deduction{req.featureID, p.row.id, p.value})
	}
	return deductions, nil
}

// capped is how much of value "cap" lets through: down to an empty balance, and
// for refunds up to the grant.
func capped(b *balance, value Amount) Amount {
	if b.unlimited {
		return value
	}
	if value < 0 {
		return max(value, -max(b.usage(), 0))
	}
	return min(value, max(b.remaining(), 0))
}

// record keeps the analytics event. It is written even if nothing was deducted.
func (s *Server) record(req trackRequest, deductions []deduction) {
	s.state.events = append(s.state.events, event{
		ID: s.state.id("evt"), Timestamp: req.timestamp.UnixMilli(), CustomerID: req.customerID,
		FeatureID: req.featureID, EventName: req.eventName, Value: req.value,
		Properties: req.properties, Deductions: orEmpty(deductions), recordedAt: s.now(),
	})
}

// trackBody is a track's answer from 2.1 on. Value echoes the request.
type trackBody struct {
	CustomerID string       `json:"customer_id"`
	EventName  string       `json:"event_name,omitempty"`
	Value      Amount       `json:"value"`
	Balance    *balanceBody `json:"balance"`
	Deductions []deduction  `json:"deductions"`
}

// oldTrackBody is a track's answer up to 1.2: it does not say what was deducted.
type oldTrackBody struct {
	ID         string `json:"id"`
	Code       string `json:"code"`
	CustomerID string `json:"customer_id"`
	FeatureID  string `json:"feature_id,omitempty"`
	EventName  string `json:"event_name,omitempty"`
}

func (s *Server) trackReply(v version, req trackRequest, status int, b *balance, deductions []deduction) reply {
	if v == v12 {
		return reply{status, oldTrackBody{"placeholder", "event_received", req.customerID, req.featureID, req.eventName}}
	}
	return reply{status, trackBody{req.customerID, req.eventName, req.value, s.balanceBody(b), orEmpty(deductions)}}
}

// orEmpty makes an empty list of nil, so that JSON has [].
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
