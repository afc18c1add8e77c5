package serve

import (
	"container/list"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

var (
	errNoToken = fault.Errorf(fault.Unauthenticated, "a master key is needed in `authorization: Bearer`")
	errLocked  = fault.Errorf(fault.Exhausted, "too many wrong credentials came from this address; try again in a minute")
)

// guard decides who may call what.
type guard struct {
	tokens  []Token
	ownAuth map[string]bool
	allowed map[Scope]map[string]bool // methods by full name
	tries   *tries
	refused *prometheus.CounterVec
}

func newGuard(cfg Config, opt Options) *guard {
	g := &guard{
		tokens: cfg.Tokens, ownAuth: map[string]bool{}, allowed: map[Scope]map[string]bool{},
		tries: newTries(cfg.AuthFailures),
		refused: promauto.With(opt.Registry).NewCounterVec(prometheus.CounterOpts{
			Name: cfg.Name + "_refused_credentials_total",
			Help: "Calls refused for their credentials: none, wrong, scope (not allowed this), locked (too many wrong ones before).",
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
	t, err := g.admit(md.Get("authorization"), addressOf(ctx, md))
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

// admit finds whose token the authorization headers carry. An address that sent
// too many wrong ones is refused even with a right one, but for the service
// tokens: many callers may stand behind a service's address.
func (g *guard) admit(headers []string, from string) (Token, error) {
	var found Token
	given, ok := false, false
	for _, header := range headers {
		text := bearerOf(header)
		given = given || text != ""
		// Compare with every token in constant time.
		for _, t := range g.tokens {
			if text != "" && t.Secret.Equal(text) {
				found, ok = t, true
			}
		}
	}
	switch {
	case ok && found.Actor == actorService:
		return found, nil
	case g.tries.locked(from):
		g.refused.WithLabelValues("locked").Inc()
		return Token{}, errLocked
	case ok:
		return found, nil
	case given:
		g.tries.failed(from)
		g.refused.WithLabelValues("wrong").Inc()
	default:
		g.refused.WithLabelValues("none").Inc()
	}
	return Token{}, errNoToken
}

// bearerOf is the credential of an authorization header; empty: none.
func bearerOf(header string) string {
	scheme, given, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(given)
}

// addressOf is where a call comes from, as far as we know it ourselves: of a
// call through a gateway the address that the gateway saw, which it puts last,
// and before it the address of the gateway, unless that is our own.
func addressOf(ctx context.Context, md metadata.MD) string {
	var own string
	if p, ok := peer.FromContext(ctx); ok {
		own = hostOf(p.Addr.String())
	}
	forwarded := strings.Join(md.Get("x-forwarded-for"), ",")
	seen := strings.TrimSpace(forwarded[strings.LastIndex(forwarded, ",")+1:])
	switch {
	case seen == "":
		return own
	case own == pipeAddr:
		return seen
	}
	return own + " " + seen
}

// pipeAddr is the address of both ends of the pipe between the own gateway and
// the own server.
const pipeAddr = "bufconn"

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

const (
	lockWindow = time.Minute
	mostTries  = 10_000 // addresses that are remembered
	longestKey = 128    // of an address; a longer one is cut
)

// tries counts wrong credentials by address, for a minute from the first one. It
// remembers a bounded number of addresses; the longest known goes first.
type tries struct {
	most int // in a minute; zero: no limit
	now  func() time.Time

	mu     sync.Mutex
	byAddr map[string]*list.Element
	order  *list.List // of *try, oldest first
}

type try struct {
	addr  string
	began time.Time
	n     int
}

func newTries(most int) *tries {
	return &tries{most: most, now: time.Now, byAddr: map[string]*list.Element{}, order: list.New()}
}

// locked says whether no more is taken from an address.
func (t *tries) locked(addr string) bool {
	if t.most == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	e, ok := t.byAddr[cut(addr)]
	return ok && e.Value.(*try).n >= t.most
}

// failed notes a wrong credential.
func (t *tries) failed(addr string) {
	if t.most == 0 {
		return
	}
	addr = cut(addr)
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
	e.Value.(*try).n++
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

func cut(addr string) string { return addr[:min(len(addr), longestKey)] }
