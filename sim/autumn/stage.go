package autumn

import (
	"encoding/json"
	"net/http"
	"time"
)

// Advance moves the server's clock on.
func (s *Server) Advance(d time.Duration) {
	s.ahead.Add(int64(d))
	if s.live != nil {
		s.live.Advance(d)
	}
}

// Change is what POST /__customer does to a customer.
type Change struct {
	CustomerID string  `json:"customer_id"`
	Card       *string `json:"card"`        // one of the Card constants
	SpendLimit *Amount `json:"spend_limit"` // how far an overflow may go below zero
	Unlimited  *bool   `json:"unlimited"`
	NewCycle   bool    `json:"new_cycle"`
	Delete     bool    `json:"delete"`
}

// Change changes a customer; an unknown one is created first.
func (s *Server) Change(ch Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cust, ok := s.state.customers[ch.CustomerID]
	if !ok {
		cust = s.create(ch.CustomerID)
	}
	if ch.Card != nil {
		cust.card = *ch.Card
	}
	if ch.SpendLimit != nil {
		cust.spendLimit = ch.SpendLimit
	}
	if ch.Unlimited != nil {
		s.lasting(cust)
		cust.balance.unlimited = *ch.Unlimited
	}
	if ch.NewCycle {
		cust.startCycle(s.now())
	}
	if ch.Delete {
		delete(s.state.customers, ch.CustomerID)
	}
}

// serveJSON reads the body of an admin route and acts.
func serveJSON[T any](s *Server, w http.ResponseWriter, r *http.Request, act func(T) error) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	var body T
	err := dec.Decode(&body)
	if err == nil {
		err = act(body)
	}
	if err != nil {
		s.failure(invalidInputs("%v", err)).send(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveCustomer(w http.ResponseWriter, r *http.Request) {
	serveJSON(s, w, r, func(ch Change) error { s.Change(ch); return nil })
}

func (s *Server) serveClock(w http.ResponseWriter, r *http.Request) {
	serveJSON(s, w, r, func(by struct {
		AdvanceMS int64 `json:"advance_ms"`
	},
	) error {
		s.Advance(time.Duration(by.AdvanceMS) * time.Millisecond)
		return nil
	})
}

func (s *Server) serveDeliver(w http.ResponseWriter, r *http.Request) {
	reply{http.StatusOK, orEmpty(s.DeliverWebhooks(r.Context(), nil))}.send(w)
}

func (s *Server) serveHooks(w http.ResponseWriter, r *http.Request) {
	serveJSON(s, w, r, func(to struct {
		URL    string `json:"url"`
		Secret string `json:"secret"`
	},
	) error {
		return s.SendWebhooks(to.URL, to.Secret)
	})
}
