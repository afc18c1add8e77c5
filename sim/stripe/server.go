package stripe

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	maxBody       = 1 << 20
	identifierTTL = 24 * time.Hour
	keyTTL        = 24 * time.Hour
	oldest        = 35 * 24 * time.Hour
	newest        = 5 * time.Minute
)

// Options configure a Server. The zero value is a test account that takes any
// secret key.
type Options struct {
	// SecretKey is the only key accepted. Empty: any that begins with sk_ is.
	SecretKey string
	// EventName is that of the only meter. Empty: llm_micro_credits.
	EventName string
	// Formula of the meter. Empty: sum.
	Formula string
	// Livemode makes it a live account.
	Livemode bool
	// PerSecond is how many events are taken a second. Zero: 1000 in live mode, 25
	// in test mode.
	PerSecond int
	// SearchLag is how late a customer is found.
	SearchLag time.Duration
	// Now is the server's clock. Nil: time.Now.
	Now func() time.Time
}

// Server is an http.Handler that plays Stripe. It is safe for concurrent use.
type Server struct {
	opts Options
	mux  *http.ServeMux

	mu        sync.Mutex
	faults    []*faultState
	customers map[string]*customer
	taken     map[string]time.Time // identifiers, until when they are
	stored    map[string]*stored   // answers by Idempotency-Key
	busy      map[string]bool      // customers with an event under way
	applied   map[string]*Applied
	second    time.Time
	inSecond  int
	nextID    int
}

type customer struct {
	id, name string
	metadata map[string]string
	created  time.Time
}

// Applied is what was counted of a customer.
type Applied struct {
	Value  int64 `json:"value"`
	Events int   `json:"events"`
}

// stored is the answer to a request with an Idempotency-Key.
type stored struct {
	params string
	until  time.Time
	answer *reply // nil: it still runs
}

// New returns a Server without customers.
func New(opts Options) *Server {
	if opts.EventName == "" {
		opts.EventName = "llm_micro_credits"
	}
	if opts.Formula == "" {
		opts.Formula = "sum"
	}
	if opts.PerSecond == 0 {
		opts.PerSecond = 25
		if opts.Livemode {
			opts.PerSecond = 1000
		}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		opts: opts, mux: http.NewServeMux(), customers: map[string]*customer{}, taken: map[string]time.Time{},
		stored: map[string]*stored{}, busy: map[string]bool{}, applied: map[string]*Applied{},
	}
	for pattern, h := range map[string]func(*call) reply{
		"POST /v1/billing/meter_events":               s.takeEvent,
		"GET /v1/billing/meters":                      s.listMeters,
		"GET /v1/billing/meters/{id}/event_summaries": s.summaries,
		"POST /v1/customers":                          s.createCustomer,
		"GET /v1/customers/search":                    s.searchCustomers,
		"/": func(c *call) reply {
			return refusal(http.StatusNotFound, "invalid_request_error", "", "Unrecognized request URL: "+c.r.URL.Path)
		},
	} {
		s.mux.Handle(pattern, s.api(h))
	}
	s.adminRoutes()
	return s
}

// ServeHTTP serves the API and the admin routes.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// call is one request, received whole.
type call struct {
	r    *http.Request
	form url.Values
	rule Fault
}

type reply struct {
	status int
	body   any
}

func (a reply) send(w http.ResponseWriter) {
	body, err := json.Marshal(a.body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the client is gone: nothing to do
}

// refusal is an answer in Stripe's error shape.
func refusal(status int, kind, code, message string) reply {
	e := map[string]string{"type": kind, "message": message}
	if code != "" {
		e["code"] = code
	}
	return reply{status, map[string]any{"error": e}}
}

func invalid(format string, args ...any) reply {
	return refusal(http.StatusBadRequest, "invalid_request_error", "", fmt.Sprintf(format, args...))
}

// api receives a request, lets its fault have its way and answers.
func (s *Server) api(h func(*call) reply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			return // the client is gone
		}
		form, err := url.ParseQuery(string(raw))
		if err != nil {
			invalid("Invalid form body").send(w)
			return
		}
		rule := s.pick(r.URL.Path)
		if failBefore(w, rule) {
			return
		}
		if bad, ok := s.refuseKey(r.Header.Get("Authorization")); ok {
			bad.send(w)
			return
		}
		c := &call{r, form, rule}
		failAfter(w, rule, s.once(r.Header.Get("Idempotency-Key"), r.URL.Path+" "+form.Encode(), func() reply {
			answer := h(c)
			if rule.Fault == FaultError500AfterApply {
				return refusal(http.StatusInternalServerError, "api_error", "", "An unknown error occurred")
			}
			return answer
		}))
	})
}

// refuseKey says no to a request without the right key.
func (s *Server) refuseKey(authorization string) (reply, bool) {
	key, ok := strings.CutPrefix(authorization, "Bearer ")
	if ok && (s.opts.SecretKey == key || s.opts.SecretKey == "" && strings.HasPrefix(key, "sk_")) {
		return reply{}, false
	}
	return refusal(http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided"), true
}

// once repeats the first answer under a key. What was refused before any work
// began is not kept.
func (s *Server) once(key, params string, work func() reply) reply {
	if key == "" {
		return work()
	}
	s.mu.Lock()
	now := s.opts.Now()
	if old, ok := s.stored[key]; ok && now.Before(old.until) {
		defer s.mu.Unlock()
		switch {
		case old.params != params:
			return refusal(http.StatusBadRequest, "idempotency_error", "", "Keys for idempotent requests can only be used with the same parameters they were first used with.")
		case old.answer == nil:
			return refusal(http.StatusConflict, "idempotency_error", "idempotency_key_in_use", "There is currently another in-progress request using this Idempotent Key.")
		}
		return *old.answer
	}
	mine := &stored{params: params, until: now.Add(keyTTL)}
	s.stored[key] = mine
	s.mu.Unlock()
	answer := work()
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer.status == http.StatusTooManyRequests || answer.status == http.StatusBadRequest {
		delete(s.stored, key)
		return answer
	}
	mine.answer = &answer
	return answer
}
