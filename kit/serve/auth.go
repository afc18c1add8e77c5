package serve

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

var (
	errNoToken = fault.Errorf(fault.Unauthenticated, "a master key is needed in `authorization: Bearer`")
	errLocked  = fault.Errorf(fault.Exhausted, "the credential is wrong, and so were too many before it from this address; wait a minute")
)

// guard decides who may call what.
type guard struct {
	tokens  []Token
	ownAuth map[string]bool
	allowed map[Scope]map[string]bool // methods by full name
	proxies Proxies
	tries   *tries
	refused *prometheus.CounterVec
}

func newGuard(cfg Config, opt Options) *guard {
	g := &guard{
		tokens: cfg.Tokens, ownAuth: map[string]bool{}, allowed: map[Scope]map[string]bool{},
		proxies: cfg.TrustedProxies, tries: newTries(cfg.AuthFailures),
		refused: promauto.With(opt.Registry).NewCounterVec(prometheus.CounterOpts{
			Name: cfg.Name + "_refused_credentials_total",
			Help: "Calls refused for their credentials: none, wrong, locked (wrong, and too many before it), virtual_key (one on a route that takes none), scope (not allowed this).",
		}, []string{"reason"}),
	}
	for _, m := range opt.OwnAuth {
		g.ownAuth[m] = true
	}
	for scope, methods := range opt.Allow {
		g.allowed[scope] = map[string]bool{}
		for _, m := range methods {
			g.allowed[scope][m] = true
		}
	}
	return g
}

// authenticate lets a call pass or says why not.
func (g *guard) authenticate(ctx context.Context, method string) error {
	if g.ownAuth[method] || strings.HasPrefix(method, "/grpc.health.") {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if ownCertificate(ctx, md) {
		ctx.Value(callKey{}).(*call).actor = actorService
		return nil
	}
	t, err := g.admit(md.Get("authorization"), g.proxies.CallerOf(ctx))
	if err != nil {
		return challenge(ctx, err)
	}
	ctx.Value(callKey{}).(*call).actor = t.Actor
	if t.Scope != "" && !g.allowed[t.Scope][method] {
		g.refused.WithLabelValues("scope").Inc()
		return fault.Errorf(fault.Denied, "the token %s has the scope %s, which does not allow this", t.Actor, t.Scope)
	}
	return nil
}

// ownCertificate says whether a call's certificate stands for the service token: it
// was verified, the call brings no other credential, and it is not made for
// somebody else.
func ownCertificate(ctx context.Context, md metadata.MD) bool {
	p, ok := peer.FromContext(ctx)
	return ok && certified(p.AuthInfo) && len(md.Get("authorization")) == 0 && len(md.Get(forOthers)) == 0
}

// challenge marks a refusal, so that callers can tell it from a method's own
// Unauthenticated, which may be about a key in the request.
func challenge(ctx context.Context, refusal error) error {
	if err := grpc.SetTrailer(ctx, metadata.Pairs("www-authenticate", "Bearer")); err != nil {
		return fmt.Errorf("refuse: %w", err)
	}
	return refusal
}

// admit finds whose token the authorization headers carry. A right one is always
// let in, whatever else came from its address: others may be behind that, such as a
// sandbox beside the gateway, and must not be able to lock it out. So a lock does
// not hide a right guess, and it need not: tokens are too long to be guessed at any
// rate, as SECURITY.md reckons. A virtual key is no guess at a token, it is only on
// the wrong route.
func (g *guard) admit(headers []string, from netip.Addr) (Token, error) {
	var found Token
	right, virtual, guess := false, false, false
	for _, header := range headers {
		text := bearerOf(header)
		if text == "" {
			continue
		}
		// Compare with every token in constant time.
		for _, t := range g.tokens {
			if t.Secret.Equal(text) {
				found, right = t, true
			}
		}
		isKey := virtualkey.Valid(text)
		virtual, guess = virtual || isKey, guess || !isKey
	}
	why, err := "none", errNoToken
	switch {
	case right:
		return found, nil
	case guess && g.tries.failed(from):
		why, err = "locked", errLocked
	case guess:
		why = "wrong"
	case virtual:
		why = "virtual_key"
	}
	g.refused.WithLabelValues(why).Inc()
	return Token{}, err
}

// bearerOf is the credential of an authorization header; empty: none.
func bearerOf(header string) string {
	scheme, given, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(given)
}

const (
	lockWindow = time.Minute
	mostTries  = 10_000 // addresses that are remembered
)

// tries counts wrong credentials by address, for a minute from the first one. It
// remembers a bounded number of addresses; the longest known goes first.
type tries struct {
	most int // in a minute; zero: no limit
	now  func() time.Time

	mu     sync.Mutex
	byAddr map[netip.Addr]*list.Element
	order  *list.List // of *try, oldest first
}

type try struct {
	addr  netip.Addr
	began time.Time
	n     int
}

func newTries(most int) *tries {
	return &tries{most: most, now: time.Now, byAddr: map[netip.Addr]*list.Element{}, order: list.New()}
}

// failed notes a wrong credential and says whether there were too many before it.
func (t *tries) failed(addr netip.Addr) bool {
	if t.most == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	e, ok := t.byAddr[addr]
	if !ok {
		if len(t.byAddr) >= mostTries {
			t.remove(t.order.Front())
		}
		e = t.order.PushBack(&try{addr: addr, began: t.now()})
		t.byAddr[addr] = e
	}
	of := e.Value.(*try)
	of.n++
	return of.n > t.most
}

// forget drops what began a minute ago. The caller holds mu.
func (t *tries) forget() {
	for e := t.order.Front(); e != nil && t.now().Sub(e.Value.(*try).began) >= lockWindow; e = t.order.Front() {
		t.remove(e)
	}
}

func (t *tries) remove(e *list.Element) {
	delete(t.byAddr, e.Value.(*try).addr)
	t.order.Remove(e)
}
