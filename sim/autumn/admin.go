package autumn

import (
	"encoding/json"
	"net/http"
)

func (s *Server) adminRoutes() {
	s.mux.HandleFunc("GET /__applied", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("by") == "key" {
			reply{http.StatusOK, s.AppliedByKey()}.send(w)
			return
		}
		reply{http.StatusOK, s.Applied()}.send(w)
	})
	s.mux.HandleFunc("POST /__grant", s.serveGrant)
	s.mux.HandleFunc("POST /__customer", s.serveCustomer)
	s.mux.HandleFunc("POST /__clock", s.serveClock)
	s.mux.HandleFunc("POST /__webhooks", s.serveHooks)
	s.mux.HandleFunc("POST /__webhooks/deliver", s.serveDeliver)
	s.mux.HandleFunc("GET /__faults", s.serveFaults)
	s.mux.HandleFunc("POST /__faults", s.serveSetFaults)
	s.mux.HandleFunc("POST /__reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
}

// Applied returns what was really deducted, by customer. Customers from whom
// nothing ever was are not in it.
func (s *Server) Applied() map[string]Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.state.applied)
}

// AppliedByKey returns what was really deducted, by lock id or, without a lock,
// by idempotency key. More than one call under one key is a double charge.
func (s *Server) AppliedByKey() map[string]Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.state.byKey)
}

func values(of map[string]*Applied) map[string]Applied {
	copied := make(map[string]Applied, len(of))
	for key, a := range of {
		copied[key] = *a
	}
	return copied
}

// Grant adds to a customer's grant. An unknown customer is created first, with
// the default plan.
func (s *Server) Grant(customerID string, credits Amount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.state.customers[customerID]
	if !ok {
		c = s.create(customerID)
	}
	s.grant(c, credits)
	s.send(c, "billing.updated", map[string]any{})
}

// Reset forgets customers, deductions, keys, locks, events and faults.
func (s *Server) Reset() {
	s.claims.reset()
	s.faults.mu.Lock()
	s.faults.rules = nil
	s.faults.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = newState()
}

func (s *Server) serveGrant(w http.ResponseWriter, r *http.Request) {
	var grant struct {
		CustomerID string `json:"customer_id"`
		Credits    Amount `json:"credits"`
	}
	if err := json.NewDecoder(r.Body).Decode(&grant); err != nil || grant.CustomerID == "" {
		s.failure(invalidInputs("want {customer_id, credits}")).send(w)
		return
	}
	s.Grant(grant.CustomerID, grant.Credits)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveSetFaults(w http.ResponseWriter, r *http.Request) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields() // a misspelt rule would silently do nothing
	var rules []Fault
	err := dec.Decode(&rules)
	if err == nil {
		err = s.SetFaults(rules...)
	}
	if err != nil {
		s.failure(invalidInputs("%v", err)).send(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveFaults(w http.ResponseWriter, _ *http.Request) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	reply{http.StatusOK, orEmpty(s.faults.rules)}.send(w)
}
