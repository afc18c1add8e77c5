package autumn

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// The faults. "Applied" means that the request did its work in full, and that
// an idempotency key stays claimed as the true status would have it.
const (
	FaultDropBeforeApply    = "drop_before_apply"     // the connection closes; nothing was claimed or applied
	FaultDropAfterApply     = "drop_after_apply"      // applied; the connection closes without an answer
	FaultClaimThenDie       = "claim_then_die"        // the header's key is claimed, nothing applied; the connection closes
	FaultError500AfterApply = "error_500_after_apply" // applied; 500, so the key is let go
	FaultError503           = "error_503"             // nothing applied; 503 service_unavailable with Retry-After: 1
	FaultRateLimited        = "rate_limited_429"      // nothing claimed or applied; Retry-After if retry_after_s
	FaultSlowApply          = "slow_apply"            // claimed at once, applied and answered after delay_ms, come what may
	FaultAccepted202Lost    = "accepted_202_lost"     // track: 202, never applied; the key stays claimed
	FaultHTML502            = "html_502"              // nothing claimed or applied; a gateway's HTML
	FaultTruncatedBody      = "truncated_body"        // applied; half of the answer, then the connection closes
	FaultNoBalance          = "no_balance"            // track: 200 with balance null, nothing applied, no lock receipt
	FaultPartial            = "partial"               // track: half of the value is applied, as if a spend limit cut it

	FaultAccepted202Late    = "accepted_202_late"     // track: 202, applied delay_ms later by the server's clock
	FaultQueuedTwice        = "queued_twice"          // as that, and the queue delivers it twice
	FaultError503AfterApply = "error_503_after_apply" // applied; 503 of another code than shedding, so the key is let go
	FaultKeyStoreDown       = "key_store_down"        // no idempotency key is looked at or claimed
	FaultKeyLifeCut         = "key_life_cut"          // the key's claim lives delay_ms only
	FaultReleaseLost        = "release_lost"          // a failure does not let the key go; nothing else happens
	FaultReceiptsCut        = "receipts_cut"          // first, every lock's receipt of more than delay_ms ago is forgotten
	FaultCycleReset         = "cycle_reset"           // first, the customer's usage goes to zero, as at the end of a cycle
	FaultPlanChange         = "plan_change"           // first, the customer moves to another plan: another grant, a new cycle, nothing used
	FaultCustomerDeleted    = "customer_deleted"      // first, the customer is deleted
	FaultFeatureRenamed     = "feature_renamed"       // track: 404 feature_not_found
	FaultClockBehind        = "clock_behind"          // the server's clock is delay_ms behind, for timestamps
	FaultVersionDrift       = "version_drift"         // applied; the answer is of version 1.2
	FaultMemoryLoss         = "memory_loss"           // first, deductions and receipts of the last delay_ms are lost
	FaultFalseLock          = "false_lock"            // track: 409 lock_already_exists, nothing applied
	FaultEventLost          = "event_lost"            // track: applied; the event is never listed
	FaultReset              = "connection_reset"      // applied; the connection is reset
	FaultHalfOpen           = "half_open"             // applied; no answer for delay_ms, then the connection closes
	FaultSlowBody           = "slow_body"             // applied; half of the answer, the rest never
	FaultNotJSON            = "not_json"              // applied; a 200 of plain text
	FaultArrivesLate        = "arrives_late"          // the connection closes; the request comes delay_ms later by the server's clock
)

var faultNames = []string{
	FaultDropBeforeApply, FaultDropAfterApply, FaultClaimThenDie, FaultError500AfterApply, FaultError503,
	FaultRateLimited, FaultSlowApply, FaultAccepted202Lost, FaultHTML502, FaultTruncatedBody, FaultNoBalance, FaultPartial,
	FaultAccepted202Late, FaultQueuedTwice, FaultError503AfterApply, FaultKeyStoreDown, FaultKeyLifeCut, FaultReleaseLost, FaultReceiptsCut,
	FaultCycleReset, FaultCustomerDeleted, FaultFeatureRenamed, FaultClockBehind, FaultVersionDrift, FaultMemoryLoss, FaultFalseLock,
	FaultEventLost, FaultReset, FaultHalfOpen, FaultSlowBody, FaultArrivesLate, FaultNotJSON, FaultPlanChange,
}

// Fault is a rule that makes requests fail. Of several rules that fire on one
// request the first in the list wins; every rule that matches counts it.
type Fault struct {
	// Path must be the request's path or another name of the same route. Empty:
	// any.
	Path string `json:"path,omitempty"`
	// CustomerID must be the customer of the request. Empty: any.
	CustomerID string `json:"customer_id,omitempty"`
	// Fault is one of the Fault constants.
	Fault string `json:"fault"`
	// Nth is the first matching request, from 1, that may fail. Zero: 1.
	Nth int `json:"nth,omitempty"`
	// Times is how many requests fail at most. Zero: one if Nth is set, else all.
	Times int `json:"times,omitempty"`
	// Probability that a request fails, decided with Seed. Zero: 1.
	Probability float64 `json:"probability,omitempty"`
	// Seed makes the decisions of Probability repeatable.
	Seed uint64 `json:"seed,omitempty"`
	// DelayMS is the time of faults that have one, in milliseconds.
	DelayMS int `json:"delay_ms,omitempty"`
	// RetryAfterS is the Retry-After of rate_limited_429 in seconds. Zero: none.
	RetryAfterS int `json:"retry_after_s,omitempty"`
}

// faultState is a rule at work.
type faultState struct {
	Fault
	Met   int `json:"met"`   // requests that matched
	Fired int `json:"fired"` // requests that failed
	rnd   *rand.Rand
}

type faultPlan struct {
	mu    sync.Mutex
	rules []*faultState
}

// SetFaults replaces the fault rules. An unknown fault is an error and changes
// nothing.
func (s *Server) SetFaults(rules ...Fault) error {
	states := make([]*faultState, len(rules))
	for i, rule := range rules {
		if !slices.Contains(faultNames, rule.Fault) {
			return fmt.Errorf("rule %d: unknown fault %q", i, rule.Fault)
		}
		states[i] = &faultState{Fault: rule, rnd: rand.New(rand.NewPCG(rule.Seed, 0))} //nolint:gosec // a fault plan must repeat by its seed
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.rules = states
	return nil
}

// pick returns the rule that befalls a request, or one without a fault.
func (p *faultPlan) pick(path, customerID string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	var picked Fault
	for _, rule := range p.rules {
		if rule.matches(path, customerID) && rule.fires() && picked.Fault == "" {
			picked = rule.Fault
			rule.Fired++
		}
	}
	return picked
}

func (f *faultState) matches(path, customerID string) bool {
	return (f.Path == "" || canonicalPath(f.Path) == canonicalPath(path)) &&
		(f.CustomerID == "" || f.CustomerID == customerID)
}

// fires counts a matching request and decides on it.
func (f *faultState) fires() bool {
	f.Met++
	times := f.Times
	if times == 0 && f.Nth > 0 {
		times = 1
	}
	if f.Met < f.Nth || (times > 0 && f.Fired >= times) {
		return false
	}
	return f.Probability == 0 || f.rnd.Float64() < f.Probability
}

// canonicalPath gives all names of one route the same path.
func canonicalPath(path string) string {
	switch path {
	case "/v1/events", "/v1/balances.track":
		return "/v1/track"
	case "/v1/entitled", "/v1/balances.check":
		return "/v1/check"
	case "/v1/customers.get_or_create":
		return "/v1/customers"
	case "/v1/events.list":
		return "/v1/events/list"
	case "/v1/billing.attach":
		return "/v1/attach"
	}
	return path
}

// failBefore does the faults that come before any work, and reports whether it
// has ended the request.
func (s *Server) failBefore(w http.ResponseWriter, rule Fault) bool {
	switch rule.Fault {
	case FaultDropBeforeApply:
		drop(w)
	case FaultError503:
		w.Header().Set("retry-after", "1")
		s.failure(errorf(http.StatusServiceUnavailable, "service_unavailable", "Service unavailable")).send(w)
	case FaultHTML502:
		w.Header().Set("content-type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html><body><h1>502 Bad Gateway</h1></body></html>"))
	default:
		return false
	}
	return true
}

// failAfter sends the answer, or what the rule makes of it.
func (s *Server) failAfter(w http.ResponseWriter, r *http.Request, rule Fault, answer reply) {
	switch rule.Fault {
	case FaultDropAfterApply, FaultClaimThenDie:
		drop(w)
	case FaultTruncatedBody:
		sendHalf(w, answer)
		drop(w)
	case FaultNotJSON:
		_, _ = w.Write([]byte("OK")) // the client is gone: nothing to do
	case FaultReset:
		reset(w)
	case FaultHalfOpen:
		hold(r, rule)
		drop(w)
	case FaultSlowBody:
		sendHalf(w, answer)
		hold(r, rule)
		drop(w)
	default:
		if rule.RetryAfterS > 0 && answer.status == http.StatusTooManyRequests {
			w.Header().Set("retry-after", strconv.Itoa(rule.RetryAfterS))
		}
		answer.send(w)
	}
}
