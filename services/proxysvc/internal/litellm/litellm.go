// Package litellm is the facade of LiteLLM's management routes: it calls the
// key service and the ledger and answers in LiteLLM's shapes. It keeps nothing of
// its own. Where LiteLLM's answer would not be true here it refuses instead;
// docs/litellm.md says route by route what is the same and what is not.
package litellm

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Ledger tells what was spent. Reports come from its totals; only what a key or a
// session used is also split by its rows.
type Ledger interface {
	Uses(ctx context.Context, q ledger.UseQuery) ([]ledger.Use, error)
	TeamModels(ctx context.Context, teams []string, days ledger.Days) ([]ledger.Use, error)
	Top(ctx context.Context, kind string, days ledger.Days, limit int) ([]ledger.Use, error)
	Slices(ctx context.Context, of ledger.AccountID, days ledger.Days) ([]ledger.Slice, error)
	Tokens(ctx context.Context, keyIDs []string) (map[string]string, error)
	Balances(ctx context.Context, now time.Time, queries []ledger.BalanceQuery) ([]ledger.Balance, error)
	FindRows(ctx context.Context, q ledger.RowQuery) ([]ledger.Row, error)
	CountRows(ctx context.Context, q ledger.RowQuery) (int64, error)
}

// Models tells which models are served, and at which prices; *proxy.Service does.
type Models interface {
	Offers() []proxy.Offer
	Price(name string) (*pricing.Model, error)
}

// Verifier finds out whose a virtual key is; fault.Unauthenticated when it is no
// live one.
type Verifier interface {
	Verify(ctx context.Context, key secret.String) (*proxy.Key, error)
}

// Parts are what a Server is made of.
type Parts struct {
	// Keysvc reaches the key service with our own credential.
	Keysvc   grpc.ClientConnInterface
	Ledger   Ledger
	Models   Models
	Verifier Verifier
}

// Server implements LiteLLMService.
type Server struct {
	litellmv1.UnimplementedLiteLLMServiceServer
	keys     keysv1.KeyServiceClient
	teams    keysv1.TeamServiceClient
	ledger   Ledger
	models   Models
	verifier Verifier
	now      func() time.Time
}

// New makes a server.
func New(p Parts) *Server {
	conn := serve.Onward{ClientConnInterface: p.Keysvc}
	return &Server{
		keys: keysv1.NewKeyServiceClient(conn), teams: keysv1.NewTeamServiceClient(conn),
		ledger: p.Ledger, models: p.Models, verifier: p.Verifier, now: time.Now,
	}
}

// idempotencyKey is what the caller sends as a header; empty: nothing.
func idempotencyKey(ctx context.Context) string {
	in, _ := metadata.FromIncomingContext(ctx)
	if v := in.Get("idempotency-key"); len(v) > 0 {
		return v[0]
	}
	return ""
}

// tokenOf takes a key or its token, as LiteLLM's routes do.
func tokenOf(key string) string {
	if strings.HasPrefix(key, virtualkey.Prefix) {
		return virtualkey.Token(key)
	}
	return key
}

// usd is an amount as the number that LiteLLM's shapes ask for: the double
// nearest to it, whose shortest decimal is the exact amount up to $8 million.
func usd[N ~int64](nano N) float64 { return float64(nano) / 1e9 }
