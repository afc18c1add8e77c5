package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
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
		{"another service's doubts about us", status.Error(codes.Unauthenticated, "bad service token"), codes.Internal, 500, "internal error"},
		{"a deadline", context.DeadlineExceeded, codes.DeadlineExceeded, 504, "took too long"},
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
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) {
		return "", fault.Wrap(fault.Unavailable, errors.New("dial tcp: refused"), "try again")
	}
	if err := s.call(master); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("the caller sees %v", err)
	}
	if !strings.Contains(s.log.String(), "dial tcp: refused") {
		t.Errorf("the log does not tell the cause:\n%s", s.log)
	}
}

func TestAPanicIsAnInternalErrorLikeAnyOther(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) { panic("at the disco") }
	if err := s.call(master); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "disco") {
		t.Errorf("the caller sees %v", err)
	}
	if !strings.Contains(s.log.String(), "at the disco") || !strings.Contains(s.log.String(), "serve_test.go") {
		t.Errorf("the log does not tell where:\n%s", s.log)
	}
	if _, metrics := s.get(http.MethodGet, "/metrics", master); !strings.Contains(metrics, `test_rpc_calls_total{code="Internal",method="/test.Echo/Unary"} 1`) {
		t.Errorf("the panic is not counted:\n%s", metrics)
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
	conn, err := Dial(s.GRPCAddr(), secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health needs no token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+master)
	if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("another scheme: %v, want Unauthenticated", err)
	}
	for _, planted := range []string{master, master2, service} {
		if strings.Contains(s.log.String(), planted) {
			t.Error("a token is in the log")
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
	conn, err := Dial(s.GRPCAddr(), secret.New(master))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for sent, taken := range map[string]bool{"abc-1": true, "a b": false, strings.Repeat("x", 129): false, "": false} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", sent)
		if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); err != nil {
			t.Fatal(err)
		}
		if (got == sent) != taken || got == "" {
			t.Errorf("sent %q, got %q", sent, got)
		}
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

