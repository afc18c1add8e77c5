package serve

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

type callKey struct{}

type call struct{ requestID, actor string }

// Actor says who calls: "master", "service" or the name of an admin token; empty
// for a method that authenticates by itself.
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

// Caller is as whom a service, or an administrator, calls a service.
type Caller struct {
	// Token is sent with every call. Without one the certificate stands for the
	// service token.
	Token secret.String
	// Identity is shown to the other side, which must be one of its authorities'
	// too; nil: the call goes in the clear.
	Identity *Identity
}

// Dial makes a client connection to another service that sends the token with
// every call. It does not wait for the other side.
//
// The target is host:port or another name that gRPC resolves; several, separated
// by commas, are tried in turn.
func (c Caller) Dial(target string) (*grpc.ClientConn, error) {
	if c.Token.Empty() {
		return dial(target, c.Identity)
	}
	return dial(target, c.Identity, grpc.WithPerRPCCredentials(bearer{c.Token}))
}

// DialForOthers makes a client connection that only passes on what its callers
// send, as a gateway for another service must: with a credential of its own it
// would lend its rights to everybody. So the calls say that the certificate is
// not theirs.
func (c Caller) DialForOthers(target string) (*grpc.ClientConn, error) {
	return dial(target, c.Identity, grpc.WithPerRPCCredentials(others{}))
}

func dial(target string, id *Identity, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(opts,
		grpc.WithTransportCredentials(id.transport()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A service that comes back is noticed within a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			// Else the pause before the next attempt, 100 ms at first, would end this one.
			MinConnectTimeout: 2 * time.Second,
		}))
	if several := strings.Split(target, ","); len(several) > 1 {
		list := manual.NewBuilderWithScheme("list")
		var state resolver.State
		for _, addr := range several {
			addr = strings.TrimSpace(addr)
			// The name is what the certificate of that address must hold.
			state.Addresses = append(state.Addresses, resolver.Address{Addr: addr, ServerName: addr})
		}
		list.InitialState(state)
		opts, target = append(opts, grpc.WithResolvers(list)), "list:///several"
	}
	return grpc.NewClient(target, opts...)
}

// Onward makes the calls of a service that another service makes for its caller: it
// tells for whom, by the name of the caller's token or as the caller says, and under
// the caller's request id. The audit over there would else know of this service only.
type Onward struct{ grpc.ClientConnInterface }

// Invoke implements grpc.ClientConnInterface.
func (o Onward) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	by := Actor(ctx)
	in, _ := metadata.FromIncomingContext(ctx)
	if named := in.Get("litellm-changed-by"); len(named) > 0 && named[0] != "" {
		by = named[0]
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "litellm-changed-by", by, "x-request-id", RequestID(ctx))
	return o.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

type bearer struct{ token secret.String }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: without
// certificates services talk in the clear inside their network.
func (bearer) RequireTransportSecurity() bool { return false }

// forOthers marks a call that is made for somebody else. It takes rights away, so
// nobody gains by sending it.
const forOthers = "x-llm-proxy-for-others"

type others struct{}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (others) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{forOthers: "1"}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (others) RequireTransportSecurity() bool { return false }
