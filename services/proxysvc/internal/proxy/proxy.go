// Package proxy is the data path: authenticate → admit → route → upstream →
// relay and meter → settle. It knows neither HTTP servers nor databases: calls
// come in as a Call, answers go out through a Sink, and the key service, the
// ledger and the upstream are interfaces.
//
// It keeps two promises to every client: nothing of an answer is passed on
// before the request is on the ledger, and the end of an answer only after its
// cost is.
package proxy

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Call is a client's request.
type Call struct {
	API       API
	RequestID string        // "req_…", ours
	Key       secret.String // the virtual key; empty: none was sent
	Path      string        // the route, without a doubled /v1
	From      netip.Addr    // of the client; invalid: not known
	Header    Header
	Query     string // raw, passed on unchanged
	Body      []byte // whole; passed on byte for byte
	// Release, if set, is called when the body is no longer needed, but for those who
	// hold the loan.
	Release func()
	// Loan of the body; whoever reads it after Release, or after the call, holds it.
	Loan *Loan
}

// Key is a verified virtual key and its team.
type Key struct {
	KeyID, Token, TeamID, UserID string
	Models, TeamModels           []string          // empty: all
	Aliases                      map[string]string // the key's own names for models
	Limits, TeamLimits           ledger.Limits
	// ModelLimits and TeamModelLimits bound single models, by their bare names.
	ModelLimits, TeamModelLimits map[string]ledger.Limits
	ExpiresAt                    time.Time // zero: never
	Tags                         []string
	// Networks that the key may be used from and Routes that it may call; empty:
	// any.
	Networks []netip.Prefix
	Routes   []string
	Gate     Gate
	// Revision of the key store that this is at least as new as.
	Revision int64

	spent keySpent // without limits of its own
}

// Gate is the team's: whether it may spend now.
type Gate struct {
	Status string // "active", "blocked", "exhausted", "suspended"; empty: no team
	Reason string // safe to show
}

// Open tells whether it may.
func (g Gate) Open() bool { return g.Status == "" || g.Status == "active" }

// Keys verifies virtual keys. Its errors are fault.Unauthenticated when the key
// is no live one, whatever the cause, and fault.Unavailable when that cannot be
// said now.
type Keys interface {
	Verify(ctx context.Context, key secret.String) (*Key, error)
}

// Ledger admits requests; *ledger.Writer is one. Its errors are *ledger.Refusal
// and fault.Unavailable.
type Ledger interface {
	Admit(ctx context.Context, a *ledger.Admission) (*ledger.Ticket, error)
	// Begin admits a request beside its call of the upstream; nil when it must be
	// admitted first.
	Begin(a *ledger.Admission) *ledger.Ticket
}

// Threads knows where conversations live that an upstream keeps. Its errors are
// fault.NotFound, also for one that belongs to somebody else, and
// fault.Unavailable.
type Threads interface {
	Thread(ctx context.Context, owner, messageID string) (ledger.Thread, error)
}

// UpstreamRequest is one request to a deployment.
type UpstreamRequest struct {
	Deployment *Deployment
	Path       string // "/v1/messages"
	Query      string
	Header     head.Lines // what the client sent, filtered; no credential
	Body       Body
	// Loan of the body: it is held for as long as it is read after the answer has begun,
	// or after the call.
	Loan *Loan
}

// Body is the body of a request to a deployment: the client's, or pieces of it with
// something else between them. The zero value is empty.
type Body struct {
	whole  []byte
	pieces [][]byte // if there are any, these are it
}

// BodyOf is a body in one piece.
func BodyOf(whole []byte) Body { return Body{whole: whole} }

// Len is how many bytes it has.
func (b Body) Len() int {
	n := len(b.whole)
	for _, p := range b.pieces {
		n += len(p)
	}
	return n
}

// AppendTo appends a copy of it.
func (b Body) AppendTo(buf []byte) []byte {
	buf = append(buf, b.whole...)
	for _, p := range b.pieces {
		buf = append(buf, p...)
	}
	return buf
}

// Pieces are what it is in, behind what comes first; nobody may change them.
func (b Body) Pieces(first ...[]byte) [][]byte {
	if b.pieces != nil {
		return append(first, b.pieces...)
	}
	return append(first, b.whole)
}

// UpstreamResponse is the beginning of an answer; the caller closes Body.
type UpstreamResponse struct {
	Status int
	Header head.Lines // it is the caller's, and should have room for OurHeaders more
	Body   io.ReadCloser
	Length int64 // of the body; 0 or less: not known
	// RetryAfter is how long the upstream asks to wait; 0: it does not say.
	RetryAfter time.Duration
}

// Upstream calls deployments with their real key. An error means that no answer
// began.
type Upstream interface {
	Send(ctx context.Context, r UpstreamRequest) (*UpstreamResponse, error)
}

// Sink takes an answer. Start is called once, before any Write; Write passes
// its bytes on at once, and before them what Start was given: of no bytes, that alone.
// Last is Write for bytes that nothing follows: they may go with the end of the answer.
// An error means that the client is gone. Stop says that
// the request is over, also while a Write waits for the client: what is left may
// take a moment only.
type Sink interface {
	Start(status int, h head.Lines) error
	Write(p []byte) error
	Last(p []byte) error
	Stop()
}

// Settings of a Service.
type Settings struct {
	// IdleTimeout ends a request after this much silence of the upstream, or up to a
	// quarter more.
	IdleTimeout time.Duration
	// ProgressInterval is how often the usage of a running stream is put on the
	// ledger, for the case that this replica dies.
	ProgressInterval time.Duration
	// SettleTimeout is how long a settlement may take, or up to a quarter more, before
	// its request is left to be settled by another replica.
	SettleTimeout time.Duration
	// ChargeDearest lets models without a price in, at the dearest one that is
	// known; otherwise they are refused.
	ChargeDearest bool
	// BudgetExceededStatus answers a request whose budget is spent.
	BudgetExceededStatus int
}

// Service runs the data path.
type Service struct {
	keys      Keys
	ledger    Ledger
	threads   Threads
	upstream  Upstream
	router    *Router
	book      *pricing.Book
	running   *Running
	settled   func(*ledger.Settlement)
	withdrawn func(d Deployment, status int)
	warn      func(ledger.Warning)
	set       Settings
	silence   patience // with upstreams
	settling  patience // with the ledger
	now       func() time.Time
}

// Parts are what a Service is made of.
type Parts struct {
	Keys     Keys
	Ledger   Ledger
	Threads  Threads
	Upstream Upstream
	Router   *Router
	Book     *pricing.Book
	Running  *Running
	// Settled is told of every request that came to its end on the ledger.
	Settled func(*ledger.Settlement)
	// Withdrawn is told of every deployment that refused our credential.
	Withdrawn func(d Deployment, status int)
	// Warn is told, at every request, of soft budgets that are spent. It may not
	// wait.
	Warn     func(ledger.Warning)
	Settings Settings
}

// New makes a Service.
func New(p Parts) *Service {
	return &Service{
		keys: p.Keys, ledger: p.Ledger, threads: p.Threads, upstream: p.Upstream, router: p.Router,
		book: p.Book, running: p.Running, settled: p.Settled, withdrawn: p.Withdrawn, warn: p.Warn, set: p.Settings, now: time.Now,
		silence:  patience{most: p.Settings.IdleTimeout, cause: errIdle},
		settling: patience{most: p.Settings.SettleTimeout, cause: context.DeadlineExceeded},
	}
}
