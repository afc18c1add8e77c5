package dev

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/certtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// certify has the services of a suite, and its administrators, use certificates,
// and no service token.
func (s *suite) certify(f certtest.Files) {
	s.t.Helper()
	delete(s.env, "LLM_PROXY_SERVICE_TOKEN")
	s.env["LLM_PROXY_TLS_CERT_FILE"], s.env["LLM_PROXY_TLS_KEY_FILE"], s.env["LLM_PROXY_TLS_CA_FILE"] = f.Cert, f.Key, f.CA
	s.identity = identityOf(s.t, f)
}

func identityOf(t testing.TB, f certtest.Files) *serve.Identity {
	t.Helper()
	id, err := serve.LoadIdentity(f.Cert, f.Key, f.CA)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestTheServicesWorkWithCertificatesInsteadOfTokens runs the main job over four
// processes that know each other by certificates only, and calls keysvc as nobody
// may.
func TestTheServicesWorkWithCertificatesInsteadOfTokens(t *testing.T) {
	t.Parallel()
	ours := certtest.NewAuthority(t)
	s := newSuite(t)
	s.certify(ours.Files(t))
	keysvc := s.start("keysvc")
	proxysvc := s.start("proxysvc")
	billingsvc := s.start("billingsvc")
	outboxsvc := s.start("outboxsvc")
	base := "http://" + proxysvc.http
	key, err := keysv1.NewKeyServiceClient(keysvc.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-1", TeamId: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	converse(t, sdk.NewClient(option.WithAPIKey(key.GetSecret()), option.WithBaseURL(base)), "claude-haiku-4-5", 1)
	var used int64
	for _, e := range s.anthropic.Ledger() {
		used += byHand(t, e)
	}
	settle(t, billingv1.NewBillingServiceClient(billingsvc.dial(t)), outboxv1.NewOutboxServiceClient(outboxsvc.dial(t)), used)
	if _, ok := s.autumn.Applied()["acme"]; !ok {
		t.Error("nothing arrived at Autumn")
	}

	stranger, fooled := certtest.NewAuthority(t).Files(t), certtest.NewAuthority(t).Files(t)
	certtest.Write(t, fooled.CA, ours.PEM)
	for name, caller := range map[string]serve.Caller{
		"a service token without a certificate": {Token: secret.New(serviceToken)},
		"a master key without a certificate":    {Token: secret.New(masterKey)},
		"a certificate of another authority":    {Identity: identityOf(t, stranger)},
		"the same, taking our authority":        {Identity: identityOf(t, fooled), Token: secret.New(masterKey)},
	} {
		conn, err := caller.Dial(keysvc.grpc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keysv1.NewKeyServiceClient(conn).ListKeys(t.Context(), &keysv1.ListKeysRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want no connection", name, err)
		}
		conn.Close() // the call is over
	}
	// The proxy calls keysvc for these, with a certificate that is not theirs.
	for credential, want := range map[string]int{
		"": http.StatusUnauthorized, key.GetSecret(): http.StatusUnauthorized, serviceToken: http.StatusUnauthorized, masterKey: http.StatusOK,
	} {
		if resp := call(t, http.MethodGet, base+"/v1/keys", credential, ""); resp.StatusCode != want {
			t.Errorf("GET /v1/keys with %q: %d, want %d", credential, resp.StatusCode, want)
		}
	}
}

// TestCertificatesRotateUnderTraffic goes over to another authority while a key is
// used, and kills the keysvc that the proxy is connected to on the way, so that it
// must connect to the other by its new certificate. No request fails.
func TestCertificatesRotateUnderTraffic(t *testing.T) {
	t.Parallel()
	old, next := certtest.NewAuthority(t), certtest.NewAuthority(t)
	f := old.Files(t)
	s := newSuite(t)
	s.certify(f)
	first, second := s.start("keysvc"), s.start("keysvc")
	s.env["KEYSVC_TARGET"] = first.grpc + "," + second.grpc
	proxysvc := s.start("proxysvc")
	base := "http://" + proxysvc.http
	issued, err := keysv1.NewKeyServiceClient(second.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-1", TeamId: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	keep := old.Files(t) // somebody who keeps the old certificate
	certtest.Write(t, keep.CA, next.PEM)

	var stop atomic.Bool
	var requests atomic.Int64
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			for !stop.Load() {
				resp, err := ask(t.Context(), base, issued.GetSecret(), "Hi")
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close() // only its status counts
				if resp.StatusCode != http.StatusOK {
					t.Errorf("status %d", resp.StatusCode)
				}
				requests.Add(1)
			}
		})
	}
	some := func() {
		until := requests.Load() + 20
		poll(t, func() bool { return requests.Load() > until })
	}
	some()
	cert, key := next.Pair(t, "127.0.0.1", time.Now().Add(time.Hour))
	certtest.Write(t, f.CA, slices.Concat(old.PEM, next.PEM))
	some()
	certtest.Write(t, f.Cert, cert)
	certtest.Write(t, f.Key, key)
	some()
	certtest.Write(t, f.CA, next.PEM)
	first.kill() // the proxy goes on with the second, by the new certificates
	some()
	stop.Store(true)
	running.Wait()
	// A key that nobody has verified yet: the new connection does its work.
	fresh, err := keysv1.NewKeyServiceClient(second.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-2", TeamId: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, func() bool {
		resp, err := ask(t.Context(), base, fresh.GetSecret(), "Hi")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close() // only its status counts
		return resp.StatusCode == http.StatusOK
	})
	conn, err := serve.Caller{Token: secret.New(masterKey), Identity: identityOf(t, keep)}.Dial(second.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := keysv1.NewKeyServiceClient(conn).ListKeys(t.Context(), &keysv1.ListKeysRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("the old certificate: %v, want no connection", err)
	}
	if !strings.Contains(proxysvc.log.String(), "certificates reloaded") {
		t.Error("the proxy did not log its new certificate")
	}
}

// TestNothingStartsWithoutACredential has every service refuse to listen where
// neither tokens nor certificates are configured, and where certificates are by
// half.
func TestNothingStartsWithoutACredential(t *testing.T) {
	t.Parallel()
	f := certtest.NewAuthority(t).Files(t)
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc", "outboxsvc"} {
		prefix := strings.ToUpper(name)
		env := []string{
			prefix + "_GRPC_LISTEN=0.0.0.0:0", prefix + "_HTTP_LISTEN=0.0.0.0:0", "DATABASE_URL=postgres://u:p@127.0.0.1:1/d",
			"KEYSVC_TARGET=127.0.0.1:1", "PROXYSVC_TARGET=127.0.0.1:1", "BILLINGSVC_TARGET=127.0.0.1:1", "ANTHROPIC_API_KEY=" + realKey,
		}
		code, stderr := runToItsEnd(t, name, env...)
		if code != 2 || !strings.Contains(stderr, "LLM_PROXY_MASTER_KEY: not set") || !strings.Contains(stderr, "LLM_PROXY_SERVICE_TOKEN: not set") {
			t.Errorf("%s without a credential: exit %d, %s", name, code, stderr)
		}
		code, stderr = runToItsEnd(t, name, append(env, "LLM_PROXY_TLS_CERT_FILE="+f.Cert, "LLM_PROXY_TLS_KEY_FILE="+f.Key)...)
		if code != 2 || !strings.Contains(stderr, "LLM_PROXY_TLS_CA_FILE: not set") {
			t.Errorf("%s with half of the certificates: exit %d, %s", name, code, stderr)
		}
	}
}
