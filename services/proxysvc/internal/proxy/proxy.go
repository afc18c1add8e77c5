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
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Call is a client's request.
type Call struct {
	RequestID string        // "req_…", ours
	Key       secret.String // the virtual key; empty: none was sent
	Header    Header
	Query     string // raw, passed on unchanged
	Body      []byte // whole; passed on byte for byte
}

// Key is a verified virtual key and its team.
type Key struct {
	KeyID, Token, TeamID, UserID string
	Models, TeamModels           []string // empty: all
	Limits, TeamLimits           ledger.Limits
	ExpiresAt                    time.Time // zero: never
	Tags                         []string
	Gate                         Gate
	// Revision of the key store that this is at least as new as.
	Revision int64
}

// Gate is the team's: whether it may spend now.
type Gate struct {
	Status string // "active", "blocked", "exhausted", "suspended"; empty: no team
	Reason string // safe to show
}

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
}

// Deployment is a model behind a real key.
type Deployment struct {
	ID        string // stable for the same settings
	ModelName string // what clients send; may end in "*"
	Model     string // what the upstream is asked for; "*" in it: the client's name
	APIBase   string // without a path, e.g. https://api.anthropic.com
	APIKey    secret.String
}

// UpstreamRequest is one request to a deployment.
type UpstreamRequest struct {
	Deployment Deployment
	Path       string // "/v1/messages"
	Query      string
	Header     Header // what the client sent, filtered; no credential
	Body       []byte
}

// UpstreamResponse is the beginning of an answer; the caller closes Body.
type UpstreamResponse struct {
	Status int
	Header Header
	Body   io.ReadCloser
}

// Upstream calls deployments with their real key. An error means that no answer
// began.
type Upstream interface {
	Send(ctx context.Context, r UpstreamRequest) (*UpstreamResponse, error)
}

// Sink takes an answer. Start is called once, before any Write; Write passes
// its bytes on at once. An error means that the client is gone.
type Sink interface {
	Start(status int, h Header) error
	Write(p []byte) error
}

// Settings of a Service.
type Settings struct {
	// IdleTimeout ends a request after this much silence of the upstream.
	IdleTimeout time.Duration
	// ProgressInterval is how often the usage of a running stream is put on the
	// ledger, for the case that this replica dies.
	ProgressInterval time.Duration
	// SettleTimeout is how long a settlement may take before its request is left
	// to be settled by another replica.
	SettleTimeout time.Duration
}

// Service runs the data path.
type Service struct {
	keys     Keys
	ledger   Ledger
	upstream Upstream
	router   *Router
	book     *pricing.Book
	running  *Running
	settled  func(*ledger.Settlement)
	set      Settings
	now      func() time.Time
}

// Parts are what a Service is made of.
type Parts struct {
	Keys     Keys
	Ledger   Ledger
	Upstream Upstream
	Router   *Router
	Book     *pricing.Book
	Running  *Running
	// Settled is told of every request that came to its end on the ledger.
	Settled  func(*ledger.Settlement)
	Settings Settings
}

// New makes a Service.
func New(p Parts) *Service {
	return &Service{
		keys: p.Keys, ledger: p.Ledger, upstream: p.Upstream, router: p.Router,
		book: p.Book, running: p.Running, settled: p.Settled, set: p.Settings, now: time.Now,
	}
}
