package serve

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/certtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

func identity(t *testing.T, f certtest.Files) *Identity {
	t.Helper()
	id, err := LoadIdentity(f.Cert, f.Key, f.CA)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// certifiedStand starts a server with an identity of an authority and no service
// token.
func certifiedStand(t *testing.T, f certtest.Files) *stand {
	t.Helper()
	id := identity(t, f)
	return start(t, func(c *Config, _ *Options) {
		c.Caller.Identity = id
		c.Tokens = c.Tokens[:2] // the master keys
	})
}

// callAs invokes the unary method.
func (s *stand) callAs(ctx context.Context, c Caller) error {
	s.t.Helper()
	conn, err := c.Dial(s.GRPCAddr())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close() // the call is over
	return conn.Invoke(ctx, unaryMethod, wrapperspb.String("hi"), &wrapperspb.StringValue{})
}

func TestACertificateStandsForTheServiceToken(t *testing.T) {
	t.Parallel()
	ours, theirs := certtest.NewAuthority(t), certtest.NewAuthority(t)
	f := ours.Files(t)
	s := certifiedStand(t, f)
	var actor string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { actor = Actor(ctx); return in, nil }

	stranger := identity(t, theirs.Files(t)) // signed by another authority, and believes only that
	fooled := theirs.Files(t)                // signed by another authority, and believes ours
	certtest.Write(t, fooled.CA, ours.PEM)
	expired := ours.Files(t)
	cert, key := ours.Pair(t, "127.0.0.1", time.Now().Add(-time.Minute))
	certtest.Write(t, expired.Cert, cert)
	certtest.Write(t, expired.Key, key)
	for _, tt := range []struct {
		name   string
		caller Caller
		want   codes.Code
		actor  string
	}{
		{"a certificate of our authority", Caller{Identity: identity(t, f)}, codes.OK, "service"},
		{"with a master key it is the master's call", Caller{Token: secret.New(master), Identity: identity(t, f)}, codes.OK, "master"},
		{"a wrong token is not made good by it", Caller{Token: secret.New("wrong-0123456789"), Identity: identity(t, f)}, codes.Unauthenticated, ""},
		{"a service token that is not configured neither", Caller{Token: secret.New(service), Identity: identity(t, f)}, codes.Unauthenticated, ""},
		{"a master key without a certificate", Caller{Token: secret.New(master)}, codes.Unavailable, ""},
		{"a stranger, who does not believe us", Caller{Identity: stranger}, codes.Unavailable, ""},
		{"a stranger, whom we do not believe", Caller{Identity: identity(t, fooled)}, codes.Unavailable, ""},
		{"an expired certificate", Caller{Identity: identity(t, expired)}, codes.Unavailable, ""},
	} {
		actor = ""
		if err := s.callAs(t.Context(), tt.caller); status.Code(err) != tt.want || actor != tt.actor {
			t.Errorf("%s: %v as %q, want %s as %q", tt.name, err, actor, tt.want, tt.actor)
		}
	}
}

// TestAGatewaysCertificateIsNotItsCallers has a gateway for other services call
// with what its callers send, be it nothing or a mark of their own.
func TestAGatewaysCertificateIsNotItsCallers(t *testing.T) {
	t.Parallel()
	f := certtest.NewAuthority(t).Files(t)
	s := certifiedStand(t, f)
	conn, err := Caller{Token: secret.New(master), Identity: identity(t, f)}.DialForOthers(s.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for name, tt := range map[string]struct {
		sent []string
		want codes.Code
	}{
		"nothing":                   {nil, codes.Unauthenticated},
		"their own key":             {[]string{"authorization", "Bearer " + master}, codes.OK},
		"a mark that says nothing":  {[]string{forOthers, ""}, codes.Unauthenticated},
		"an empty credential":       {[]string{"authorization", ""}, codes.Unauthenticated},
		"a credential of no scheme": {[]string{"authorization", "service"}, codes.Unauthenticated},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), tt.sent...)
		if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// TestRESTNeedsACredentialOfItsOwn calls through the own gateway, whose calls go
// through memory and bring no certificate.
func TestRESTNeedsACredentialOfItsOwn(t *testing.T) {
	t.Parallel()
	s := certifiedStand(t, certtest.NewAuthority(t).Files(t))
	for token, want := range map[string]int{master: http.StatusOK, "": http.StatusUnauthorized, "wrong-0123456789": http.StatusUnauthorized} {
		if code, body := s.get(http.MethodPost, "/v1/echo", token); code != want {
			t.Errorf("REST with %q: %d %s, want %d", token, code, body, want)
		}
	}
}

// TestAServerProvesTheNameThatWasCalled reaches a server by the name in its
// certificate, also as one of several targets, and not by its address.
func TestAServerProvesTheNameThatWasCalled(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	f := authority.Files(t)
	cert, key := authority.Pair(t, "localhost", time.Now().Add(time.Hour))
	certtest.Write(t, f.Cert, cert)
	certtest.Write(t, f.Key, key)
	s := certifiedStand(t, f)
	_, port, _ := strings.Cut(s.GRPCAddr(), ":")
	for target, want := range map[string]codes.Code{
		"localhost:" + port:                         codes.OK,
		"127.0.0.1:" + port:                         codes.Unavailable,
		"127.0.0.1:" + port + ", localhost:" + port: codes.OK,
	} {
		conn, err := Caller{Identity: identity(t, f)}.Dial(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Invoke(t.Context(), unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != want {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
		conn.Close() // the call is over
	}
}

// TestCertificatesAreReplacedUnderTraffic goes over to another authority in the
// order that an operator does, while callers call, each with new connections, and
// one on a connection from before. No call fails. Then the old authority counts
// no more.
func TestCertificatesAreReplacedUnderTraffic(t *testing.T) {
	t.Parallel()
	old, next := certtest.NewAuthority(t), certtest.NewAuthority(t)
	f := old.Files(t)
	s := certifiedStand(t, f)
	caller := Caller{Identity: identity(t, f)}
	before := old.Files(t) // somebody who keeps the old certificate
	certtest.Write(t, before.CA, slices.Concat(old.PEM, next.PEM))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	var running sync.WaitGroup
	long, err := caller.Dial(s.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { long.Close() })
	for _, do := range []func() error{
		func() error { return s.callAs(t.Context(), caller) },
		func() error { return s.callAs(t.Context(), caller) },
		func() error {
			return long.Invoke(t.Context(), unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{})
		},
	} {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	someCalls := func() {
		for until := calls.Load() + 30; calls.Load() < until && !t.Failed(); {
			if err := s.callAs(t.Context(), caller); err != nil {
				t.Fatal(err)
			}
		}
	}
	someCalls()
	certtest.Write(t, f.CA, slices.Concat(old.PEM, next.PEM))
	someCalls()
	cert, key := next.Pair(t, "127.0.0.1", time.Now().Add(time.Hour))
	certtest.Write(t, f.Cert, cert) // without its key
	someCalls()
	if !strings.Contains(s.log.String(), "certificates not reloaded") {
		t.Error("half of a change is not logged")
	}
	certtest.Write(t, f.Key, key)
	someCalls()
	if err := s.callAs(t.Context(), Caller{Identity: identity(t, before)}); err != nil {
		t.Errorf("the old certificate, while both authorities count: %v", err)
	}
	certtest.Write(t, f.CA, next.PEM)
	someCalls()
	cancel()
	running.Wait()
	if err := s.callAs(t.Context(), Caller{Identity: identity(t, before)}); status.Code(err) != codes.Unavailable {
		t.Errorf("the old certificate, when its authority counts no more: %v, want Unavailable", err)
	}
	if log := s.log.String(); strings.Contains(log, "PRIVATE") || !strings.Contains(log, "certificates reloaded") {
		t.Errorf("the log:\n%s", log)
	}
	if _, text := s.get(http.MethodGet, "/metrics", master); !strings.Contains(text, "test_certificate_expires_timestamp_seconds") {
		t.Error("the metric of the certificate's end is missing")
	}
}

func TestCertificatesAreConfiguredWhole(t *testing.T) {
	t.Parallel()
	f := certtest.NewAuthority(t).Files(t)
	other := certtest.NewAuthority(t).Files(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	certtest.Write(t, empty, nil)
	for name, tt := range map[string]struct {
		files certtest.Files
		want  string // of the error
	}{
		"instead of tokens":   {f, ""},
		"without a key":       {certtest.Files{Cert: f.Cert, CA: f.CA}, "LLM_PROXY_TLS_KEY_FILE: not set"},
		"only an authority":   {certtest.Files{CA: f.CA}, "LLM_PROXY_TLS_CERT_FILE: not set"},
		"a missing file":      {certtest.Files{Cert: f.Cert, Key: "/nowhere/key.pem", CA: f.CA}, "/nowhere/key.pem"},
		"another's key":       {certtest.Files{Cert: f.Cert, Key: other.Key, CA: f.CA}, "private key does not match"},
		"no authority inside": {certtest.Files{Cert: f.Cert, Key: f.Key, CA: empty}, "holds no certificate"},
		"neither":             {certtest.Files{}, "LLM_PROXY_SERVICE_TOKEN: not set"},
	} {
		c, err := load(map[string]string{
			"LLM_PROXY_TLS_CERT_FILE": tt.files.Cert, "LLM_PROXY_TLS_KEY_FILE": tt.files.Key, "LLM_PROXY_TLS_CA_FILE": tt.files.CA,
		})
		if tt.want == "" {
			if err != nil || c.Caller.Identity == nil || len(c.Tokens) != 0 {
				t.Errorf("%s: %v", name, err)
			}
			if text := fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, "PRIVATE") {
				t.Errorf("a printed configuration shows a key: %s", text)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
