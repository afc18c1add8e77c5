package autumn

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxFilters  = 5
)

// eventFilter selects events; empty fields select all.
type eventFilter struct {
	customerID string
	featureID  string
	from, to   int64 // unix milliseconds, both included; zero: open
	properties map[string]json.RawMessage
}

// eventPage is one page of events, newest first.
type eventPage struct {
	List    []event `json:"list"`
	HasMore bool    `json:"has_more"`
	Offset  int     `json:"offset"`
	Limit   int     `json:"limit"`
	Total   int     `json:"total"` // in this page
}

// listEvents serves POST /v1/events/list. Events come from an analytics store
// and are seconds behind: absence proves nothing.
func (s *Server) listEvents(c *call) (reply, error) {
	f := fields{object: c.body}
	var filter eventFilter
	page := eventPage{Limit: defaultPage}
	f.read("customer_id", &filter.customerID)
	f.read("feature_id", &filter.featureID)
	f.read("offset", &page.Offset)
	f.read("limit", &page.Limit)
	f.read("filter_by", &filter.properties)
	var window object
	if f.read("custom_range", &window) {
		span := fields{object: window}
		span.read("start", &filter.from)
		span.read("end", &filter.to)
		f.err = span.err
	}
	switch {
	case f.err != nil:
		return reply{}, f.err
	case page.Limit < 1 || page.Limit > maxPage || page.Offset < 0:
		return reply{}, invalidInputs("limit, offset: out of range")
	case len(filter.properties) > maxFilters:
		return reply{}, invalidInputs("filter_by: at most %d properties", maxFilters)
	}
	all := s.visible(filter)
	start := min(page.Offset, len(all))
	end := min(start+page.Limit, len(all))
	page.List, page.HasMore, page.Total = orEmpty(all[start:end]), end < len(all), end-start
	return reply{http.StatusOK, page}, nil
}

// visible returns the events that match and that the lag has let through,
// newest first.
func (s *Server) visible(filter eventFilter) []event {
	latest := s.now().Add(-max(s.opts.EventLag, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []event
	for _, e := range slices.Backward(s.state.events) {
		if filter.matches(e, latest) {
			list = append(list, e)
		}
	}
	return list
}

func (f eventFilter) matches(e event, latest time.Time) bool {
	return !e.recordedAt.After(latest) &&
		(f.customerID == "" || f.customerID == e.CustomerID) &&
		(f.featureID == "" || f.featureID == e.FeatureID) &&
		e.Timestamp >= f.from && (f.to == 0 || e.Timestamp <= f.to) &&
		f.hasProperties(e.Properties)
}

func (f eventFilter) hasProperties(raw json.RawMessage) bool {
	var properties map[string]json.RawMessage
	if json.Unmarshal(raw, &properties) != nil {
		return len(f.properties) == 0
	}
	for name, want := range f.properties {
		if string(properties[name]) != string(want) {
			return false
		}
	}
	return true
}

// aggregateEvents serves POST /v1/events/aggregate: the sum and number of what
// is visible.
func (s *Server) aggregateEvents(c *call) (reply, error) {
	f := fields{object: c.body}
	var filter eventFilter
	f.read("customer_id", &filter.customerID)
	f.read("feature_id", &filter.featureID)
	f.read("filter_by", &filter.properties)
	if f.err != nil {
		return reply{}, f.err
	}
	var sum Amount
	list := s.visible(filter)
	for _, e := range list {
		sum += e.Value
	}
	return reply{http.StatusOK, map[string]any{"total": map[string]any{s.opts.FeatureID: map[string]any{"count": len(list), "sum": sum}}}}, nil
}
