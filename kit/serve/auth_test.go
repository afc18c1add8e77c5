package serve

import (
	"context"
	"net/http"
	"net/netip"
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
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
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

// callers call a server over each transport, as if x-forwarded-for said where they
// are; empty: it is not sent.
func callers(s *stand) map[string]func(token, forwarded string) codes.Code {
	return map[string]func(token, forwarded string) codes.Code{
		"gRPC": func(token, forwarded string) codes.Code {
			ctx := s.t.Context()
			if forwarded != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", forwarded)
			}
			return status.Code(s.dial(token).Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}))
		},
		"REST": func(token, forwarded string) codes.Code {
			return s.ask(http.MethodPost, "/v1/echo", token, forwarded)
		},
		"plain HTTP": func(token, forwarded string) codes.Code {
			return s.ask(http.MethodGet, "/metrics", token, forwarded)
		},
	}
}

// ask calls over HTTP and returns the code that the status stands for.
func (s *stand) ask(method, path, token, forwarded string) codes.Code {
	s.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	if forwarded != "" {
		// The second is what a client may try, to choose its own address.
		header["X-Forwarded-For"], header["Grpc-Metadata-X-Forwarded-For"] = strings.Split(forwarded, ";"), []string{"198.51.100.77"}
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.HTTPAddr()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() // only its status counts
	switch resp.StatusCode {
	case http.StatusOK:
		return codes.OK
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	}
	s.t.Fatalf("%s = %d", path, resp.StatusCode)
	return codes.Unknown
}

const wrong = "wrong-canary-0123456"

func TestWhoGuessesLocksNobodyElseOut(t *testing.T) {
	t.Parallel()
	s := scoped(t, 3)
	clock := time.Unix(1_000_000, 0)
	s.guard.tries.now = func() time.Time { return clock }
	for name, call := range callers(s) {
		want := func(what, token string, code codes.Code) {
			t.Helper()
			if got := call(token, ""); got != code {
				t.Errorf("%s, %s: %s, want %s", name, what, got, code)
			}
		}
		for range 5 {
			want("no credential is no guess", "", codes.Unauthenticated)
			want("a virtual key is no guess at a token", virtualkey.New().Reveal(), codes.Unauthenticated)
		}
		for range 3 {
			want("a wrong one", wrong, codes.Unauthenticated)
		}
		want("one more", wrong, codes.ResourceExhausted)
		want("another one", wrong+"7", codes.ResourceExhausted)
		want("no credential", "", codes.Unauthenticated)
		want("a virtual key", virtualkey.New().Reveal(), codes.Unauthenticated)
		for _, right := range []string{master, ops, service} {
			want("a right one from there", right, codes.OK)
		}
		clock = clock.Add(time.Minute)
		want("a wrong one a minute later", wrong, codes.Unauthenticated)
		clock = clock.Add(time.Minute)
	}
}

func TestNobodyChoosesTheAddressThatItIsKnownBy(t *testing.T) {
	t.Parallel()
	s := scoped(t, 1)
	clock := time.Unix(1_000_000, 0)
	s.guard.tries.now = func() time.Time { return clock }
	for name, call := range callers(s) {
		if got := call(wrong, "192.0.2.1"); got != codes.Unauthenticated {
			t.Errorf("%s: the first guess: %s", name, got)
		}
		for _, forwarded := range []string{"192.0.2.2", "192.0.2.3, 127.0.0.1", "nonsense", ""} {
			if got := call(wrong, forwarded); got != codes.ResourceExhausted {
				t.Errorf("%s: a guess that says it is from %q: %s, want %s", name, forwarded, got, codes.ResourceExhausted)
			}
		}
		clock = clock.Add(time.Minute)
	}
}

func TestATrustedProxySaysWhereACallerIs(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config, _ *Options) {
		c.AuthFailures = 1
		c.TrustedProxies = Proxies{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")}
	})
	clock := time.Unix(1_000_000, 0)
	s.guard.tries.now = func() time.Time { return clock }
	for name, call := range callers(s) {
		if got := call(wrong, "203.0.113.9, 10.1.2.3"); got != codes.Unauthenticated {
			t.Errorf("%s: the first guess: %s", name, got)
		}
		for forwarded, want := range map[string]codes.Code{
			"10.1.2.3":            codes.ResourceExhausted, // the same caller
			"10.1.2.3, 192.0.2.9": codes.ResourceExhausted, // behind two proxies
			"10.4.5.6,10.1.2.3,192.0.2.9, 192.0.2.10": codes.ResourceExhausted,
			"::ffff:10.1.2.3":                         codes.ResourceExhausted, // in its other form
			"203.0.113.9":                             codes.Unauthenticated,   // somebody else, only named before
			"10.1.2.3, 203.0.113.7":                   codes.Unauthenticated,   // not a trusted proxy: it is the caller
			"10.1.2.3, nonsense":                      codes.Unauthenticated,   // the proxy itself
		} {
			if got := call(wrong, forwarded); got != want {
				t.Errorf("%s: a guess from %q: %s, want %s", name, forwarded, got, want)
			}
		}
		clock = clock.Add(time.Minute)
	}
	// A client's own header line stands before the one that its proxy adds.
	for _, want := range []codes.Code{codes.Unauthenticated, codes.ResourceExhausted} {
		if got := s.ask(http.MethodPost, "/v1/echo", wrong, "198.51.100.1;10.1.2.3"); got != want {
			t.Errorf("two header lines: %s, want %s", got, want)
		}
	}
	if got := s.ask(http.MethodPost, "/v1/echo", wrong, "198.51.100.2;10.1.2.3"); got != codes.ResourceExhausted {
		t.Errorf("another first line: %s, want %s", got, codes.ResourceExhausted)
	}
}

func TestTriesAreBounded(t *testing.T) {
	t.Parallel()
	tries := newTries(1)
	nth := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
	for i := range mostTries + 10 {
		tries.failed(nth(i))
	}
	if len(tries.byAddr) != mostTries || tries.order.Len() != mostTries {
		t.Errorf("%d addresses in %d tries, want %d", len(tries.byAddr), tries.order.Len(), mostTries)
	}
	if !tries.failed(nth(15)) || tries.failed(nth(5)) {
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
