package proxy

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// prepare does everything that needs no upstream and writes nothing.
func (s *Service) prepare(ctx context.Context, c Call) (*run, error) {
	key, err := s.authenticate(ctx, &c)
	if err != nil {
		return nil, err
	}
	if !key.Gate.Open() {
		return nil, errGate(key.Gate)
	}
	r := &run{outbound: outbound{s: s, call: c}, key: key}
	r.path = c.API.Path()
	if err := r.route(key); err != nil {
		return nil, err
	}
	held, err := r.follow(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	if err := r.choose(now); err != nil {
		return nil, err
	}
	r.request(&r.admit.Request, now)
	r.admit.Claims = key.claims(r.req.Model)
	if err := r.hold(held); err != nil {
		return nil, err
	}
	return r, nil
}

// request says on the ledger what is asked for.
func (r *run) request(to *ledger.Request, now time.Time) {
	key := r.key
	to.RequestID, to.KeyID, to.Token, to.TeamID, to.UserID = r.call.RequestID, key.KeyID, key.Token, key.TeamID, key.UserID
	to.ModelGroup, to.Model, to.ModelID, to.PriceVersion = r.req.Model, r.dep.Model, r.dep.ID, r.s.book.Version
	to.Stream, to.StartedAt, to.Tags = r.req.Stream, now, requestTags(key.Tags, r.call.Header)
	to.UserAgent, to.Client = r.call.Header.Get("User-Agent"), clientFacts(r.call.Header, r.req.ClientUser)
}

// authenticate verifies the call's key. A key that is no live one gets the same
// answer whatever the cause; a key store that is down is never a bad key.
func (s *Service) authenticate(ctx context.Context, c *Call) (*Key, error) {
	if c.Key.Empty() {
		return nil, errKey()
	}
	key, err := s.keys.Verify(ctx, c.Key)
	switch {
	case fault.KindOf(err) == fault.Unauthenticated:
		return nil, errKey()
	case err != nil:
		return nil, errOverloaded(err)
	case !key.ExpiresAt.IsZero() && !s.now().Before(key.ExpiresAt):
		return nil, errKey()
	}
	if denied := key.mayCall(c); denied != nil {
		return nil, denied
	}
	return key, nil
}

// route finds where the call may go.
func (o *outbound) route(key *Key) error {
	var bad *Error
	if o.req, bad = Scan(o.call.API, o.call.Body); bad != nil {
		return bad
	}
	o.table = o.s.router.table.Load()
	name := o.req.Model
	if alias, ok := key.Aliases[name]; ok {
		name = alias
	}
	if !o.table.plan(&o.plan, name, o.call.API.Provider(), key.session()) {
		return o.table.noRoute(name, o.call.API)
	}
	if !key.mayUse(o.req.Model) && !key.mayUse(name) {
		return errModelDenied(o.req.Model)
	}
	return nil
}

// noRoute says why no deployment serves a name for an API.
func (t *table) noRoute(name string, api API) *Error {
	other := Anthropic
	if api == Messages {
		other = OpenAI
	}
	if len(t.targets(name, other)) > 0 {
		return errWrongAPI(name, other)
	}
	return errModel(name)
}

// session is what stays on one deployment.
func (k *Key) session() string {
	if k.UserID != "" {
		return k.UserID
	}
	return k.KeyID
}

// owner is who may continue a conversation that the upstream keeps.
func (k *Key) owner() string {
	if k.TeamID != "" {
		return "team:" + k.TeamID
	}
	return "key:" + k.KeyID
}

// follow finds the deployment that holds the conversation which the request
// continues, and how many tokens that has. Only those to whom it belongs may
// continue it: all of them share one real key.
func (r *run) follow(ctx context.Context) (tokens int64, err error) {
	if r.req.Previous == "" {
		return 0, nil
	}
	thread, err := r.s.threads.Thread(ctx, r.key.owner(), r.req.Previous)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return 0, errThread(r.req.Previous, "was not found; start a new one")
	case err != nil:
		return 0, errOverloaded(err)
	}
	d, ok := r.plan.holder(thread.ModelID)
	if !ok {
		return 0, errThread(r.req.Previous, "lives at a deployment that does not serve this model any more; start a new one")
	}
	r.plan.only(d)
	return thread.Tokens, nil
}

// hold sets what the admission holds: the most that the request can use, at
// whichever deployment it ends. held is the length of the conversation that it
// continues.
func (r *run) hold(held int64) error {
	b := bound(r.req)
	b.PromptTokens = min(b.PromptTokens+held, longestPrompt)
	for d := range r.plan.all {
		price, listed := r.s.priceOf(d)
		if !listed {
			r.s.warn(ledger.Warning{Account: ledger.AccountID{Kind: ledger.KindModel, ID: shown(d.Model)}})
		}
		if price == nil {
			return errModel(r.req.Model) // no price: never free
		}
		cost, err := price.WorstCost(b, r.admit.StartedAt)
		if err != nil {
			return errBody("max_tokens: too large")
		}
		r.admit.Hold = max(r.admit.Hold, cost)
		r.admit.Tokens = max(r.admit.Tokens, b.PromptTokens+price.MostOutput(b))
	}
	return nil
}

// priceOf is the price of a deployment: its own, or the book's for its model. One
// that is not listed has the price that stands in for it, or nil.
func (s *Service) priceOf(d *target) (price *pricing.Model, listed bool) {
	if d.Price != nil {
		return d.Price, true
	}
	if price, err := s.book.Model(d.Model); err == nil {
		return price, true
	}
	if s.set.ChargeDearest {
		return s.book.Dearest(s.now()), false
	}
	return nil, false
}
