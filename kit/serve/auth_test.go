package serve

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

const (
	gateway = "gateway-canary-12345"
	finance = "finance-canary-12345"
	ops     = "operator-canary-1234"
)

// scoped starts a server whose unary method only the scope issue may call.
func scoped(t *testing.T, failures int) *stand {
	t.Helper()
	return start(t, func(c *Config, o *Options) {
		c.Tokens = append(c.Tokens,
			Token{Actor: "gateway", Secret: secret.New(gateway), Scope: Issue},
			Token{Actor: "finance", Secret: secret.New(finance), Scope: Read},
			Token{Actor: "ops", Secret: secret.New(ops)})
		c.AuthFailures = failures
		o.Allow = map[Scope][]string{Issue: {unaryMethod}, Read: {streamMethod}}
	})
}

func TestATokenMayCallWhatItsScopeAllows(t *testing.T) {
	t.Parallel()
	s := scoped(t, 0)
	var actor string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { actor = Actor(ctx); return in, nil }
	for _, tt := range []struct {
		name, token string
		want        codes.Code
		actor       string
	}{
		{"a master key may call everything", master, codes.OK, "master"},
		{"so may an admin token", ops, codes.OK, "ops"},
		{"the gateway may issue", gateway, codes.OK, "gateway"},
		{"finance may not", finance, codes.PermissionDenied, ""},
		{"a stranger is unknown", "stranger-0123456789", codes.Unauthenticated, ""},
	} {
		actor = ""
		if err := s.call(tt.token); status.Code(err) != tt.want || actor != tt.actor {
			t.Errorf("%s: %v as %q, want %s as %q", tt.name, err, actor, tt.want, tt.actor)
		}
	}
	stream, err := s.dial(gateway).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, streamMethod)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.firstOf(stream); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the gateway's stream: %v, want PermissionDenied", err)
	}
	for token, want := range map[string]int{master: 200, ops: 200, finance: 200, gateway: 403, "x": 401} {
		if code, _ := s.get(http.MethodGet, "/metrics", token); code != want {
			t.Errorf("metrics with %s = %d, want %d", token, code, want)
		}
	}
}

func TestAnAddressWithTooManyWrongCredentialsIsLockedOut(t *testing.T) {
	t.Parallel()
	s := scoped(t, 3)
	clock := time.Unix(1_000_000, 0)
	s.guard.tries.now = func() time.Time { return clock }
	want := func(what, token string, code codes.Code) {
		t.Helper()
		if err := s.call(token); status.Code(err) != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	for range 5 {
		want("no credential is no guess", "", codes.Unauthenticated)
	}
	for range 3 {
		want("a wrong one", "wrong-0123456789", codes.Unauthenticated)
	}
	want("one more", "wrong-0123456789", codes.ResourceExhausted)
	want("a right one from there", master, codes.ResourceExhausted)
	want("a service", service, codes.OK)
	if code, _ := s.get(http.MethodGet, "/metrics", master); code != http.StatusTooManyRequests {
		t.Errorf("metrics = %d, want 429", code)
	}
	if code, _ := s.get(http.MethodPost, "/v1/echo", master); code != http.StatusTooManyRequests {
		t.Errorf("REST = %d, want 429", code)
	}
	if code, _ := s.get(http.MethodPost, "/v1/echo", service); code != http.StatusOK {
		t.Errorf("REST of a service = %d, want 200", code)
	}
	// Somebody else, through a gateway that is on the locked address.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-for", "127.0.0.1, 192.0.2.7")
	if err := s.dial(master).Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); err != nil {
		t.Errorf("through a gateway: %v", err)
	}
	clock = clock.Add(time.Minute)
	want("a minute later", master, codes.OK)
}

func TestTriesAreBounded(t *testing.T) {
	t.Parallel()
	tries := newTries(1)
	for i := range mostTries + 10 {
		tries.failed(fmt.Sprint(i) + strings.Repeat("x", 200))
	}
	if len(tries.byAddr) != mostTries || tries.order.Len() != mostTries {
		t.Errorf("%d addresses in %d tries, want %d", len(tries.byAddr), tries.order.Len(), mostTries)
	}
	if tries.locked("5"+strings.Repeat("x", 200)) || !tries.locked("15"+strings.Repeat("x", 200)) {
		t.Error("the oldest must be forgotten, and only those")
	}
}

func TestAdminTokensAreRead(t *testing.T) {
	t.Parallel()
	access := func(tokens, failures string) (Config, error) {
		return load(map[string]string{
			"LLM_PROXY_MASTER_KEY": master, "LLM_PROXY_SERVICE_TOKEN": service,
			"LLM_PROXY_ADMIN_TOKENS": tokens, "LLM_PROXY_AUTH_FAILURES": failures,
		})
	}
	const others = 2 // the master key and the service token
	c, err := access("gw:issue:"+gateway+", fin:read:with:colons-0123456789,ops:admin:"+ops, "0")
	if err != nil {
		t.Fatal(err)
	}
	type plain struct{ actor, scope, text string }
	var got []plain
	for _, tok := range c.Tokens[others:] {
		got = append(got, plain{tok.Actor, string(tok.Scope), tok.Secret.Reveal()})
	}
	want := []plain{{"gw", "issue", gateway}, {"fin", "read", "with:colons-0123456789"}, {"ops", "", ops}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(plain{})); diff != "" || c.AuthFailures != 0 {
		t.Errorf("%d failures, tokens (-want +got):\n%s", c.AuthFailures, diff)
	}
	if c, err := access("", ""); err != nil || len(c.Tokens) != others || c.AuthFailures != 60 {
		t.Errorf("without settings: %d admin tokens, %d failures, %v; want none, 60", len(c.Tokens)-others, c.AuthFailures, err)
	}
	for entry, fault := range map[string]string{
		"canary-0123456789":                "entry 1 is not NAME:SCOPE:TOKEN",
		"a:root:canary-0123456789":         "entry 1 has a scope that is not admin, issue or read",
		"a b:read:canary-0123456789":       "entry 1 has a name that is not 1 to 64 letters",
		"a:read:canary":                    "entry 1 has a token of 6 characters",
		"master:read:canary-0123456789":    `entry 1 has the name "master", which is taken`,
		"a:read:" + ops + ",a:read:" + ops: `entry 2 has the name "a", which is taken`,
	} {
		_, err := access(entry, "")
		if err == nil || !strings.Contains(err.Error(), fault) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q and no token", entry, err, fault)
		}
	}
}
