package serve

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

type callKey struct{}

type call struct{ requestID, actor string }

// Actor says who calls: "master" or "service"; empty for a method that
// authenticates by itself.
func Actor(ctx context.Context) string {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c.actor
	}
	return ""
}

// RequestID is the call's id: the caller's x-request-id, or a new one.
func RequestID(ctx context.Context) string {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c.requestID
	}
	return ""
}

// requestIDOf takes the caller's id when it is short and harmless.
func requestIDOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, id := range md.Get("x-request-id") {
		if len(id) > 0 && len(id) <= 128 && strings.IndexFunc(id, notIDRune) < 0 {
			return id
		}
	}
	return "rpc_" + rand.Text()
}

func notIDRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream hands out its context by a method
}

func (s withContext) Context() context.Context { return s.ctx }

// Dial makes a client connection to another service that sends a service token
// with every call. It does not wait for the other side. Without a token it only
// passes on what its callers send, as a gateway for another service must: with
// one it would lend its own rights to everybody.
//
// The target is host:port or another name that gRPC resolves; several, separated
// by commas, are tried in turn.
func Dial(target string, token secret.String) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A service that comes back is noticed within a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			// Else the pause before the next attempt, 100 ms at first, would end this one.
			MinConnectTimeout: 2 * time.Second,
		}),
	}
	if several := strings.Split(target, ","); len(several) > 1 {
		list := manual.NewBuilderWithScheme("list")
		var state resolver.State
		for _, addr := range several {
			state.Addresses = append(state.Addresses, resolver.Address{Addr: strings.TrimSpace(addr)})
		}
		list.InitialState(state)
		opts, target = append(opts, grpc.WithResolvers(list)), "list:///several"
	}
	if !token.Empty() {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer{token}))
	}
	return grpc.NewClient(target, opts...)
}

type bearer struct{ token secret.String }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: services
// talk in the clear inside their network.
func (bearer) RequireTransportSecurity() bool { return false }
