package stripe

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const meterID = "mtr_test_1"

// wholeNumber is what a meter takes as a value.
var wholeNumber = regexp.MustCompile(`^-?[0-9]{1,18}$`)

// takeEvent serves POST /v1/billing/meter_events.
func (s *Server) takeEvent(c *call) reply {
	id, cus, value := c.form.Get("identifier"), c.form.Get("payload[stripe_customer_id]"), c.form.Get("payload[value]")
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	at := now.Unix()
	if text := c.form.Get("timestamp"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return invalid("Invalid integer: %s", text)
		}
		at = n
	}
	switch {
	case !s.room(now):
		return refusal(http.StatusTooManyRequests, "invalid_request_error", "rate_limit", "Request rate limit exceeded.")
	case s.busy[cus]:
		return refusal(http.StatusTooManyRequests, "invalid_request_error", "lock_timeout", "This object cannot be accessed right now because another API request is currently accessing it.")
	case c.form.Get("event_name") != s.opts.EventName:
		return invalid("No active meter found for event name: %s", c.form.Get("event_name"))
	case cus == "" || value == "":
		return invalid("Missing required payload key")
	case !wholeNumber.MatchString(value):
		return invalid("The value must be a whole number: %s", value)
	case len(id) > 100:
		return invalid("Invalid string: the identifier must be at most 100 characters")
	case now.Sub(time.Unix(at, 0)) > oldest || time.Unix(at, 0).Sub(now) > newest:
		return invalid("The timestamp must be within the past 35 calendar days or up to 5 minutes in the future")
	}
	s.linger(c, cus)
	if until, ok := s.taken[id]; id != "" && ok && now.Before(until) {
		return invalid("An event already exists with identifier %s.", id)
	}
	if id == "" {
		id = s.id("evt")
	}
	s.taken[id] = now.Add(identifierTTL)
	if _, known := s.customers[cus]; known {
		s.count(cus, value)
	}
	return reply{http.StatusOK, map[string]any{
		"object": "billing.meter_event", "created": now.Unix(), "event_name": s.opts.EventName, "identifier": id,
		"livemode": s.opts.Livemode, "timestamp": at, "payload": map[string]string{"stripe_customer_id": cus, "value": value},
	}}
}

// linger makes a slow event keep its customer busy. It is called, and returns,
// with the lock held.
func (s *Server) linger(c *call, cus string) {
	if c.rule.Fault != FaultSlowApply {
		return
	}
	s.busy[cus] = true
	s.mu.Unlock()
	<-time.After(time.Duration(c.rule.DelayMS) * time.Millisecond)
	s.mu.Lock()
	delete(s.busy, cus)
}

// room counts an event against the limit of this second.
func (s *Server) room(now time.Time) bool {
	if now.Sub(s.second) >= time.Second {
		s.second, s.inSecond = now, 0
	}
	s.inSecond++
	return s.inSecond <= s.opts.PerSecond
}

func (s *Server) count(cus, value string) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return // it is a whole number of 18 digits at most
	}
	if s.applied[cus] == nil {
		s.applied[cus] = &Applied{}
	}
	s.applied[cus].Value += n
	s.applied[cus].Events++
}

func (s *Server) id(prefix string) string {
	s.nextID++
	return prefix + "_" + strconv.Itoa(s.nextID)
}

// listMeters serves GET /v1/billing/meters.
func (s *Server) listMeters(*call) reply {
	return reply{http.StatusOK, map[string]any{"object": "list", "has_more": false, "data": []any{map[string]any{
		"id": meterID, "object": "billing.meter", "event_name": s.opts.EventName, "status": "active", "livemode": s.opts.Livemode,
		"default_aggregation": map[string]string{"formula": s.opts.Formula},
	}}}}
}

// summaries serves what was counted of a customer, over all time.
func (s *Server) summaries(c *call) reply {
	cus := c.r.URL.Query().Get("customer")
	s.mu.Lock()
	defer s.mu.Unlock()
	data := []any{}
	if a := s.applied[cus]; a != nil && c.r.PathValue("id") == meterID {
		data = append(data, map[string]any{"object": "billing.meter_event_summary", "aggregated_value": a.Value, "meter": meterID})
	}
	return reply{http.StatusOK, map[string]any{"object": "list", "has_more": false, "data": data}}
}

// createCustomer serves POST /v1/customers: every call makes one.
func (s *Server) createCustomer(c *call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	cus := &customer{id: s.id("cus"), name: c.form.Get("name"), metadata: map[string]string{}, created: s.opts.Now()}
	for name := range c.form {
		if key, ok := strings.CutPrefix(name, "metadata["); ok {
			cus.metadata[strings.TrimSuffix(key, "]")] = c.form.Get(name)
		}
	}
	s.customers[cus.id] = cus
	return reply{http.StatusOK, cus.body()}
}

func (c *customer) body() map[string]any {
	return map[string]any{"id": c.id, "object": "customer", "name": c.name, "metadata": c.metadata, "created": c.created.Unix()}
}

var teamQuery = regexp.MustCompile(`^metadata\['team_id'\]:'((?:[^'\\]|\\.)*)'$`)

// searchCustomers serves the one query that is asked here. A new customer is not
// found at once.
func (s *Server) searchCustomers(c *call) reply {
	m := teamQuery.FindStringSubmatch(c.r.URL.Query().Get("query"))
	if m == nil {
		return invalid("We were unable to parse your search query")
	}
	team := regexp.MustCompile(`\\(.)`).ReplaceAllString(m[1], "$1")
	s.mu.Lock()
	defer s.mu.Unlock()
	data := []any{}
	for _, cus := range s.customers {
		if cus.metadata["team_id"] == team && !s.opts.Now().Before(cus.created.Add(s.opts.SearchLag)) {
			data = append(data, cus.body())
		}
	}
	return reply{http.StatusOK, map[string]any{"object": "search_result", "has_more": false, "data": data}}
}
