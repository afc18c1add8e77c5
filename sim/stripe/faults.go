package stripe

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
)

// The faults.
const (
	FaultDropBeforeApply    = "drop_before_apply"     // the connection closes; nothing was taken
	FaultDropAfterApply     = "drop_after_apply"      // taken; the connection closes
	FaultError500AfterApply = "error_500_after_apply" // taken; 500
	FaultSlowApply          = "slow_apply"            // taken after delay_ms, come what may; the customer is busy meanwhile
	FaultRateLimited        = "rate_limited_429"      // nothing taken
	FaultHTML502            = "html_502"              // nothing taken; a gateway's HTML
)

var faultNames = []string{
	FaultDropBeforeApply, FaultDropAfterApply, FaultError500AfterApply, FaultSlowApply, FaultRateLimited, FaultHTML502,
}

// Fault is a rule that makes requests fail. Of several rules that fire on one
// request the first wins.
type Fault struct {
	Path        string  `json:"path,omitempty"` // empty: any
	Fault       string  `json:"fault"`
	Nth         int     `json:"nth,omitempty"`         // the first that may fail, from 1; zero: 1
	Times       int     `json:"times,omitempty"`       // how many fail; zero: one if Nth is set, else all
	Probability float64 `json:"probability,omitempty"` // zero: 1
	Seed        uint64  `json:"seed,omitempty"`
	DelayMS     int     `json:"delay_ms,omitempty"` // of slow_apply
}

type faultState struct {
	Fault
	met, fired int
	rnd        *rand.Rand
}

// SetFaults replaces the rules. An unknown fault is an error and changes nothing.
func (s *Server) SetFaults(rules ...Fault) error {
	states := make([]*faultState, len(rules))
	for i, rule := range rules {
		if !slices.Contains(faultNames, rule.Fault) {
			return fmt.Errorf("rule %d: unknown fault %q", i, rule.Fault)
		}
		states[i] = &faultState{Fault: rule, rnd: rand.New(rand.NewPCG(rule.Seed, 0))} //nolint:gosec // a fault plan must repeat by its seed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = states
	return nil
}

func (s *Server) pick(path string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var picked Fault
	for _, f := range s.faults {
		if (f.Path == "" || f.Path == path) && f.fires() && picked.Fault == "" {
			picked = f.Fault
			f.fired++
		}
	}
	return picked
}

func (f *faultState) fires() bool {
	f.met++
	times := f.Times
	if times == 0 && f.Nth > 0 {
		times = 1
	}
	if f.met < f.Nth || times > 0 && f.fired >= times {
		return false
	}
	return f.Probability == 0 || f.rnd.Float64() < f.Probability
}

// failBefore does the faults that come before any work, and says whether it has
// ended the request.
func failBefore(w http.ResponseWriter, rule Fault) bool {
	switch rule.Fault {
	case FaultDropBeforeApply:
		drop(w)
	case FaultRateLimited:
		refusal(http.StatusTooManyRequests, "invalid_request_error", "rate_limit", "Request rate limit exceeded.").send(w)
	case FaultHTML502:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html><body><h1>502 Bad Gateway</h1></body></html>"))
	default:
		return false
	}
	return true
}

func failAfter(w http.ResponseWriter, rule Fault, answer reply) {
	if rule.Fault == FaultDropAfterApply {
		drop(w)
		return
	}
	answer.send(w)
}

func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// Applied returns what was counted, by customer.
func (s *Server) Applied() map[string]Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	copied := map[string]Applied{}
	for id, a := range s.applied {
		copied[id] = *a
	}
	return copied
}

// CustomerOf finds the customer of a team. Empty: there is none.
func (s *Server) CustomerOf(teamID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.customers {
		if c.metadata["team_id"] == teamID {
			return id
		}
	}
	return ""
}

func (s *Server) adminRoutes() {
	s.mux.HandleFunc("GET /__applied", func(w http.ResponseWriter, _ *http.Request) {
		reply{http.StatusOK, s.Applied()}.send(w)
	})
	s.mux.HandleFunc("POST /__faults", func(w http.ResponseWriter, r *http.Request) {
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields() // a misspelt rule would silently do nothing
		var rules []Fault
		err := dec.Decode(&rules)
		if err == nil {
			err = s.SetFaults(rules...)
		}
		if err != nil {
			invalid("%v", err).send(w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
