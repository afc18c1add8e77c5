package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

func TestErrorsBecomeStatusesAndUnknownOnesSayNothing(t *testing.T) {
	t.Parallel()
	driver := errors.New(`relation "keys.keys" does not exist, password=hunter2`)
	tests := []struct {
		name string
		err  error
		code codes.Code
		http int
		text string
	}{
		{"invalid", fault.Errorf(fault.Invalid, "name is empty"), codes.InvalidArgument, 400, "name is empty"},
		{"not found", fault.Errorf(fault.NotFound, "no such key"), codes.NotFound, 404, "no such key"},
		{"exists", fault.Errorf(fault.Exists, "taken"), codes.AlreadyExists, 409, "taken"},
		{"conflict", fault.Errorf(fault.Conflict, "changed"), codes.Aborted, 409, "changed"},
		{"precondition", fault.Errorf(fault.Precondition, "not now"), codes.FailedPrecondition, 400, "not now"},
		{"denied", fault.Errorf(fault.Denied, "no"), codes.PermissionDenied, 403, "no"},
		{"exhausted", fault.Errorf(fault.Exhausted, "slow down"), codes.ResourceExhausted, 429, "slow down"},
		{"unavailable, its cause hidden", fault.Wrap(fault.Unavailable, driver, "try again"), codes.Unavailable, 503, "try again"},
		{"data loss", fault.Errorf(fault.DataLoss, "a row is missing"), codes.DataLoss, 500, "a row is missing"},
		{"anything else", driver, codes.Internal, 500, "internal error"},
		{"another service's answer", status.Error(codes.NotFound, "team x not found"), codes.NotFound, 404, "team x not found"},
		{"another service's answer without what was wrapped around it", fmt.Errorf("read hunter2: %w", status.Error(codes.NotFound, "team x not found")), codes.NotFound, 404, "team x not found"},
		{"another service that cannot be reached, without its address", status.Error(codes.Unavailable, "transport: dial tcp hunter2:9101"), codes.Unavailable, 503, "cannot be reached"},
		{"another service that took too long, without its address", status.Error(codes.DeadlineExceeded, "last error: dial tcp hunter2:9101"), codes.DeadlineExceeded, 504, "took too long"},
		{"another service's own trouble", status.Error(codes.Internal, "hunter2"), codes.Internal, 500, "internal error"},
		{"another service's doubts about us", status.Error(codes.Unauthenticated, "bad service token"), codes.Internal, 500, "internal error"},
		{"a deadline", context.DeadlineExceeded, codes.DeadlineExceeded, 504, "took too long"},
		{"a caller who went away", fmt.Errorf("query hunter2: %w", context.Canceled), codes.Canceled, 499, "cancelled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			s.echo.unary = func(context.Context, string) (string, error) { return "", tt.err }
			err := s.call(master)
			if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("over gRPC: %v, want %s with %q", err, tt.code, tt.text)
			}
			code, body := s.get(http.MethodPost, "/v1/echo", master)
			if code != tt.http || !strings.Contains(body, tt.text) || strings.Contains(body, "hunter2") {
				t.Errorf("over REST: %d %s, want %d with %q", code, body, tt.http, tt.text)
			}
		})
	}
}

func TestACausesTextIsInTheLogOnly(t *testing.T) {
	t.Parallel()
	raw := errors.New(`relation "keys.keys" does not exist`)
	tests := []struct {
		name string
		err  error
	}{
		{"an error that nobody gave a kind", raw},
		{"the cause of a fault", fault.Wrap(fault.Unavailable, raw, "try again")},
		{"another service that cannot be reached", status.Error(codes.Unavailable, raw.Error())},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			s.echo.unary = func(context.Context, string) (string, error) { return "", tt.err }
			if err := s.call(master); err == nil || strings.Contains(err.Error(), "relation") {
				t.Errorf("over gRPC the caller sees %v", err)
			}
			if code, body := s.get(http.MethodPost, "/v1/echo", master); code < 500 || strings.Contains(body, "relation") {
				t.Errorf("over REST the caller sees %d %s", code, body)
			}
			if n := strings.Count(s.log.String(), `relation \"keys.keys\" does not exist`); n != 2 {
				t.Errorf("the log tells the cause %d times, want 2:\n%s", n, s.log)
			}
		})
	}
}

func TestAPanicIsAnInternalErrorLikeAnyOther(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) { panic("at the disco") }
	s.echo.stream = func(grpc.ServerStream) error { panic("in the stream") }
	if err := s.call(master); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "disco") {
		t.Errorf("the caller sees %v", err)
	}
	if code, body := s.get(http.MethodPost, "/v1/echo", master); code != http.StatusInternalServerError || strings.Contains(body, "disco") {
		t.Errorf("over REST the caller sees %d %s", code, body)
	}
	if err := s.firstOf(s.newStream()); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "stream") {
		t.Errorf("the caller of a stream sees %v", err)
	}
	for _, want := range []string{"at the disco", "in the stream", "serve_test.go"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not tell %q:\n%s", want, s.log)
		}
	}
	_, metrics := s.get(http.MethodGet, "/metrics", master)
	for _, want := range []string{
		`test_rpc_calls_total{code="Internal",method="/test.Echo/Unary"} 2`, `test_rpc_calls_total{code="Internal",method="/test.Echo/Stream"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics:\n%s", want, metrics)
		}
	}
}

// TestAPanicOfAPlainHandlerIsLogged is about handlers that are no RPC, such as
// the one of /v1/messages.
func TestAPanicOfAPlainHandlerIsLogged(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	err := s.Mux().HandlePath(http.MethodGet, "/v1/plain", func(http.ResponseWriter, *http.Request, map[string]string) { panic("plainly") })
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr()+"/v1/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("the client gets %s, want a dropped connection", resp.Status)
	}
	if !strings.Contains(s.log.String(), "plainly") || !strings.Contains(s.log.String(), `"level":"error"`) {
		t.Errorf("the log does not tell the panic as an error:\n%s", s.log)
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var actor string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { actor = Actor(ctx); return in, nil }
	for token, want := range map[string]string{master: "master", master2: "master", service: "service"} {
		if err := s.call(token); err != nil || actor != want {
			t.Errorf("a right token: %v, actor %q, want %q", err, actor, want)
		}
		if code, _ := s.get(http.MethodPost, "/v1/echo", token); code != http.StatusOK {
			t.Errorf("a right token over REST: %d", code)
		}
	}
	for _, token := range []string{"", "sk-wrong", master + "x", master[1:]} {
		if err := s.call(token); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a wrong token: %v, want Unauthenticated", err)
		}
		if code, _ := s.get(http.MethodPost, "/v1/echo", token); code != http.StatusUnauthorized {
			t.Errorf("a wrong token over REST: %d, want 401", code)
		}
		if code, _ := s.get(http.MethodGet, "/metrics", token); code != http.StatusUnauthorized {
			t.Errorf("metrics with a wrong token: %d, want 401", code)
		}
	}
	conn := s.dial("")
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health needs no token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+master)
	if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("another scheme: %v, want Unauthenticated", err)
	}
}

// TestARefusalSaysThatItIsAboutTheServiceToken lets callers tell it from a
// method's own Unauthenticated.
func TestARefusalSaysThatItIsAboutTheServiceToken(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) {
		return "", fault.Errorf(fault.Unauthenticated, "invalid api key")
	}
	for token, want := range map[string]int{"sk-wrong": 1, service: 0} {
		conn := s.dial(token)
		var trailer metadata.MD
		err := conn.Invoke(t.Context(), unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}, grpc.Trailer(&trailer))
		if status.Code(err) != codes.Unauthenticated || len(trailer.Get("www-authenticate")) != want {
			t.Errorf("with %s: %v, challenges %v, want %d", token, err, trailer.Get("www-authenticate"), want)
		}
	}
}

func TestNoTokenIsEverLogged(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	answers := []func() (string, error){
		func() (string, error) { return "ok", nil },
		func() (string, error) { return "", errors.New("the database is away") },
		func() (string, error) { return "", fault.Errorf(fault.Denied, "no") },
		func() (string, error) { panic("at the disco") },
	}
	const wrong = "sk-virtual-canary-90"
	tokens := []string{master, master2, service, wrong}
	for _, answer := range answers {
		s.echo.unary = func(context.Context, string) (string, error) { return answer() }
		for _, token := range tokens {
			_ = s.call(token)
			s.get(http.MethodPost, "/v1/echo", token)
			s.get(http.MethodGet, "/metrics", token)
			s.get(http.MethodGet, "/nowhere", token)
		}
	}
	if n := strings.Count(s.log.String(), `"msg":"rpc"`); n != 2*len(answers)*len(tokens) {
		t.Errorf("%d calls are in the log, want %d", n, 2*len(answers)*len(tokens))
	}
	for _, planted := range tokens {
		if strings.Contains(s.log.String(), planted) {
			t.Errorf("%s is in the log:\n%s", planted, s.log)
		}
	}
}

func TestMethodsWithAuthenticationOfTheirOwnPass(t *testing.T) {
	t.Parallel()
	s := start(t, func(_ *Config, o *Options) { o.OwnAuth = []string{unaryMethod} })
	if err := s.call(""); err != nil {
		t.Errorf("without a token: %v", err)
	}
}

func TestTheRequestIDIsTheCallersWhenItIsHarmless(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var got string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { got = RequestID(ctx); return in, nil }
	conn := s.dial(master)
	for sent, taken := range map[string]bool{"abc-1": true, "a b": false, strings.Repeat("x", 129): false, "": false} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", sent)
		if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); err != nil {
			t.Fatal(err)
		}
		if (got == sent) != taken || got == "" {
			t.Errorf("sent %q, got %q", sent, got)
		}
		if !strings.Contains(s.log.String(), `"request_id":"`+got+`"`) {
			t.Errorf("%q is not in the log:\n%s", got, s.log)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/v1/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+master)
	req.Header.Set("X-Request-Id", "over-rest:1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got != "over-rest:1" {
		t.Errorf("over REST got %q, want the caller's", got)
	}
}

func TestHealthAndDocuments(t *testing.T) {
	t.Parallel()
	notReady := errors.New("not yet")
	var ready error
	s := start(t, func(_ *Config, o *Options) { o.Ready = func(context.Context) error { return ready } })
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/openapi.json": "swagger"} {
		if code, body := s.get(http.MethodGet, path, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	ready = notReady
	if code, body := s.get(http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "not yet") {
		t.Errorf("/readyz of a service that is not ready: %d %s", code, body)
	}
	if code, _ := s.get(http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz of a service that is not ready: %d", code)
	}
}
