package anthropic

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func request(url string, h proxy.Header, body string) proxy.UpstreamRequest {
	return proxy.UpstreamRequest{
		Deployment: proxy.Deployment{APIBase: url, APIKey: secret.New("sk-ant-real")},
		Path:       "/v1/messages", Query: "beta=true&x=%20", Header: h, Body: []byte(body),
	}
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	type seen struct {
		Method, URI, Body string
		Length            int64
		Header            http.Header
	}
	var got seen
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = seen{r.Method, r.RequestURI, string(body), r.ContentLength, r.Header}
	}))
	defer server.Close()
	resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{
		"Accept-Encoding": {"identity"}, "Anthropic-Beta": {"a", "b"},
	}, "{ }"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := seen{"POST", "/v1/messages?beta=true&x=%20", "{ }", 3, http.Header{
		"Accept-Encoding": {"identity"}, "Anthropic-Beta": {"a", "b"}, "Content-Length": {"3"}, "X-Api-Key": {"sk-ant-real"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// TestNothingIsSentTwice breaks a connection that was used before, after it has
// taken the request. Go's transport would send a request with an
// Idempotency-Key again; it may have been billed already.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // it is only drained
		if requests.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	c := New()
	send := func() error {
		resp, err := c.Send(t.Context(), request(server.URL, proxy.Header{"Idempotency-Key": {"k"}}, "{}"))
		if err != nil {
			return err
		}
		io.Copy(io.Discard, resp.Body) //nolint:errcheck // so that the connection is used again
		return resp.Body.Close()
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if err := send(); err == nil {
		t.Error("the broken request succeeded")
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("the server got %d requests, want 2", n)
	}
}

func TestARedirectIsPassedOnAndNotFollowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/messages" {
			t.Error("the redirect was followed, with the real key")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{}, "{}"))
	if err != nil || resp.Status != http.StatusTemporaryRedirect {
		t.Fatalf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}

func TestACancelledCallEndsAtTheUpstream(t *testing.T) {
	t.Parallel()
	begun, gone := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // it is only drained
		close(begun)
		<-r.Context().Done()
		close(gone)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := New().Send(ctx, request(server.URL, proxy.Header{}, "{}")); err == nil {
		t.Error("a cancelled call succeeded")
	}
	<-gone
}
