package autumn

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBody = 1 << 20

	defaultIdempotencyTTL = 24 * time.Hour
	defaultEventLag       = 3 * time.Second
	lockTTL               = 24 * time.Hour
)

// Options configure a Server. The zero value is a sandbox that takes any secret
// key and whose customers have no balance.
type Options struct {
	// SecretKey is the only key accepted. Empty: any that begins with am_sk_ is.
	SecretKey string
	// LiveSecretKey is the key of the account's live environment, which shares nothing
	// with this one: Live is its server. Empty: there is none.
	LiveSecretKey string
	// Env is "sandbox" or "live", what answers say. Empty: sandbox.
	Env string
	// FeatureID is the only feature that exists. Empty: credits.
	FeatureID string
	// EventName is the only event that deducts the feature. Empty: none does.
	EventName string
	// DefaultGrant is how many credits a new customer's plan grants. Zero: there
	// is no default plan, and new customers have no balance.
	DefaultGrant int64
	// AutoCreateCustomers makes track and check create unknown customers under
	// every version, not just under 1.2.
	AutoCreateCustomers bool
	// IdempotencyTTL is how long a claimed key stays claimed. Zero: 24 hours.
	IdempotencyTTL time.Duration
	// EventLag is how late events are listed. Zero: 3 seconds; negative: none.
	EventLag time.Duration
	// Card is what new customers pay with, one of the Card constants. Empty: none.
	Card string
	// TopUpPlan is the one-off plan that attach sells credits of. Empty: top_up.
	TopUpPlan string
	// Now is the server's clock. Nil: time.Now. POST /__clock moves it on.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Env == "" {
		o.Env = "sandbox"
	}
	if o.FeatureID == "" {
		o.FeatureID = "credits"
	}
	if o.IdempotencyTTL == 0 {
		o.IdempotencyTTL = defaultIdempotencyTTL
	}
	if o.EventLag == 0 {
		o.EventLag = defaultEventLag
	}
	if o.TopUpPlan == "" {
		o.TopUpPlan = "top_up"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Server is an http.Handler that plays Autumn. It is safe for concurrent use.
type Server struct {
	opts   Options
	mux    *http.ServeMux
	live   *Server // nil: there is none
	faults faultPlan
	claims claims
	busy   claims // what is being worked on and only once at a time

	limits limits
	hooks  hooks
	ahead  atomic.Int64 // of Options.Now, in nanoseconds

	mu    sync.Mutex
	state state
	stray []stray // requests that are still on their way
	file  string  // where state is kept; empty: nowhere
}

// New returns a Server without customers.
func New(opts Options) *Server {
	s := &Server{opts: opts.withDefaults(), mux: http.NewServeMux()}
	s.state = newState()
	for pattern, h := range map[string]handler{
		"POST /v1/track":                   s.track,
		"POST /v1/events":                  s.track,
		"POST /v1/balances.track":          s.track,
		"POST /v1/check":                   s.check,
		"POST /v1/entitled":                s.check,
		"POST /v1/balances.check":          s.check,
		"POST /v1/customers":               s.createCustomer("id"),
		"POST /v1/customers.get_or_create": s.createCustomer("customer_id"),
		"GET /v1/customers/{id}":           s.getCustomer,
		"POST /v1/customers.get":           s.getCustomer,
		"POST /v1/events/list":             s.listEvents,
		"POST /v1/events.list":             s.listEvents,
		"POST /v1/events/aggregate":        s.aggregateEvents,
		"POST /v1/events.aggregate":        s.aggregateEvents,
		"POST /v1/balances.finalize":       s.finalize,
		"POST /v1/usage":                   s.setUsage,
		"POST /v1/balances/update":         s.updateBalance,
		"POST /v1/balances.update":         s.updateBalance,
		"POST /v1/balances/recalculate":    s.recalculate,
		"POST /v1/balances.recalculate":    s.recalculate,
		"POST /v1/balances/create":         s.createBalance,
		"POST /v1/balances.create":         s.createBalance,
		"POST /v1/attach":                  s.attach,
		"POST /v1/billing.attach":          s.attach,
		"POST /v1/checkout":                s.checkout,
		"POST " + batchPath:                s.batchTrack,

		"POST /v1/customers/{id}/entities":            s.createEntity,
		"GET /v1/customers/{id}/entities/{entity}":    s.withEntity(s.entityReply),
		"DELETE /v1/customers/{id}/entities/{entity}": s.withEntity(s.deleteEntity),
		"POST /v1/entities.create":                    s.createEntity,
		"POST /v1/entities.get":                       s.withEntity(s.entityReply),
		"POST /v1/entities.delete":                    s.withEntity(s.deleteEntity),
		"/":                                           notFound,
	} {
		s.mux.Handle(pattern, s.api(h))
	}
	s.adminRoutes()
	if opts.LiveSecretKey != "" {
		opts.SecretKey, opts.LiveSecretKey, opts.Env = opts.LiveSecretKey, "", "live"
		s.live = New(opts)
	}
	return s
}

// Live is the server of the live environment. Nil: there is none.
func (s *Server) Live() *Server { return s.live }

// ServeHTTP serves the API and the admin routes. The key decides the environment.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.live != nil && s.live.authenticate(r.Header.Get("authorization")) == nil {
		s = s.live
	}
	s.mux.ServeHTTP(w, r)
}

// call is one request, received whole.
type call struct {
	r       *http.Request
	body    object   // empty if there was none
	items   []object // of a batch
	bodyErr error    // the body was not a JSON object
	version version
	fault   string // the fault that befalls it; empty: none
	rule    Fault
}

// reply is a handler's answer before it is sent, so that faults can still
// replace it.
type reply struct {
	status int
	body   any
}

type handler func(*call) (reply, error)

// api receives a request, lets its fault have its way and answers.
func (s *Server) api(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			return // the client is gone, or lies about its body
		}
		c := &call{r: r}
		if r.URL.Path == batchPath {
			c.items, c.bodyErr = parseList(raw)
		} else {
			c.body, c.bodyErr = parseObject(raw)
		}
		rule := s.faults.pick(r.URL.Path, c.customerID())
		c.fault, c.rule = rule.Fault, rule
		if rule.Fault == FaultArrivesLate {
			s.delay(c, h, rule)
			drop(w)
			return
		}
		s.arrive()
		s.mu.Lock()
		s.befall(rule, c.customerID())
		s.work()
		s.mu.Unlock()
		if s.failBefore(w, rule) {
			return
		}
		s.failAfter(w, r, rule, s.run(c, h, rule))
	})
}

var (
	errSimulated = errors.New("simulated error")
	errRedis     = &apiError{Status: http.StatusServiceUnavailable, Code: "internal_error", Message: "Redis client timeout"}
)

// now is the server's clock.
func (s *Server) now() time.Time { return s.opts.Now().Add(time.Duration(s.ahead.Load())) }

// run does the work of a request, in the order of Autumn's middleware.
func (s *Server) run(c *call, h handler, rule Fault) reply {
	if err := s.authenticate(c.r.Header.Get("authorization")); err != nil {
		return s.failure(err)
	}
	var err error
	if c.version, err = parseVersion(c.r.Header.Get("x-api-version")); err != nil {
		return s.failure(err)
	}
	if rule.Fault == FaultRateLimited || !s.limits.take(limitOf(c.r.URL.Path), c.customerID(), s.now()) {
		return s.failure(&apiError{Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded", Message: "Rate limit exceeded"})
	}
	return s.once(rule, "header", c.r.Header.Get("idempotency-key"), func() reply {
		return s.answer(c, h, rule)
	})
}

// answer runs the handler itself. A slow one works on after its client has gone.
func (s *Server) answer(c *call, h handler, rule Fault) reply {
	if what, err := c.exclusive(); what != "" {
		if !s.busy.take(what, s.now(), s.now().Add(lockTTL)) {
			return s.failure(err)
		}
		defer s.busy.release(what)
	}
	switch rule.Fault {
	case FaultSlowApply:
		if c.failsOpen(rule) {
			break // its client is not kept waiting
		}
		<-time.After(time.Duration(rule.DelayMS) * time.Millisecond)
	case FaultVersionDrift:
		c.version = v12
	case FaultClaimThenDie:
		return reply{status: http.StatusOK} // never sent; it keeps the claim
	}
	if c.bodyErr != nil {
		return s.failure(c.bodyErr)
	}
	answer, err := h(c)
	if err == nil && c.r.Method == http.MethodPost {
		err = s.save()
	}
	if err != nil {
		return s.failure(err)
	}
	switch rule.Fault {
	case FaultError500AfterApply:
		return s.failure(errSimulated)
	case FaultError503AfterApply:
		return s.failure(errRedis)
	}
	return answer
}

// customerID is the customer that a request is about, as far as it says.
func (c *call) customerID() string {
	if id, ok := c.body.text("customer_id"); ok {
		return id
	}
	if id, ok := c.body.text("id"); ok {
		return id
	}
	return c.r.PathValue("id")
}

func notFound(c *call) (reply, error) {
	return reply{}, &apiError{Status: http.StatusNotFound, Code: "not_found", Message: "Not found: " + c.r.URL.Path}
}

// send writes an answer.
func (a reply) send(w http.ResponseWriter) {
	body, err := json.Marshal(a.body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the client is gone: nothing to do
}
