package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// hosts are servers of each kind that a client calls: in the clear, by TLS, and by
// HTTP/2.
func hosts(t *testing.T, h http.Handler) map[string]struct {
	url    string
	client *Client
} {
	t.Helper()
	all := map[string]struct {
		url    string
		client *Client
	}{}
	for _, name := range []string{"in the clear", "TLS", "HTTP/2"} {
		server := httptest.NewUnstartedServer(h)
		c := New()
		if name == "in the clear" {
			server.Start()
		} else {
			server.EnableHTTP2 = name == "HTTP/2"
			server.StartTLS()
			roots := x509.NewCertPool()
			roots.AddCert(server.Certificate())
			c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
		}
		t.Cleanup(func() { c.http.CloseIdleConnections(); server.Close() })
		all[name] = struct {
			url    string
			client *Client
		}{server.URL, c}
	}
	return all
}

// onLoan is a request whose buffer is written over when its loan has ended, as another
// request does. The race detector sees who still reads it.
func onLoan(url string, size int) (r proxy.UpstreamRequest, ended chan struct{}) {
	body := bytes.Repeat([]byte("a"), size)
	r = request(url, proxy.Header{}, "")
	r.Body = proxy.BodyOf(body)
	ended = make(chan struct{})
	r.Loan = proxy.NewLoan(func(bool) {
		for i := range body {
			body[i] = 'b'
		}
		close(ended)
	})
	return r, ended
}

func has(ended chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// TestAnAnswerBeforeTheBodyWasRead has an upstream that answers, and reads on: for as
// long as the body is written it belongs to nobody else.
func TestAnAnswerBeforeTheBodyWasRead(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	goOn := make(chan struct{}, 3)
	got := make(chan int, 3)
	for name, host := range hosts(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()      //nolint:errcheck // HTTP/2 always is
		io.WriteString(w, "early") //nolint:errcheck // the test reads it
		rc.Flush()
		<-goOn
		body, _ := io.ReadAll(r.Body) // what arrived is counted
		got <- bytes.Count(body, []byte("a"))
	})) {
		r, ended := onLoan(host.url, size)
		resp, err := host.client.Send(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.Loan.Release() // by the caller, which does not need it any more
		if has(ended) {
			t.Errorf("%s: the loan ended while the body was written", name)
		}
		goOn <- struct{}{}
		if n := <-got; n != size {
			t.Errorf("%s: the upstream got %d bytes that are the request's, want %d", name, n, size)
		}
		if text, err := io.ReadAll(resp.Body); string(text) != "early" || err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		resp.Body.Close()
		<-ended
	}
}

// TestACallThatEndsBeforeTheBodyWasRead is left by its caller, or by its upstream, in
// the middle of the body. The loan ends then, and not while anybody reads.
func TestACallThatEndsBeforeTheBodyWasRead(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	for _, ends := range []string{"cancelled", "answered and closed", "refused"} {
		began, over := make(chan struct{}, 3), make(chan struct{})
		for _, host := range hosts(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			switch ends {
			case "cancelled":
				<-over
			case "answered and closed":
				http.NewResponseController(w).EnableFullDuplex() //nolint:errcheck // HTTP/2 always is
				http.NewResponseController(w).Flush()
				<-over
			case "refused":
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
		})) {
			ctx, cancel := context.WithCancel(t.Context())
			r, ended := onLoan(host.url, size)
			if ends == "cancelled" {
				go func() { <-began; cancel() }()
			}
			if resp, err := host.client.Send(ctx, r); err == nil {
				resp.Body.Close()
			}
			r.Loan.Release()
			cancel()
			<-ended

		}
		close(over)
	}
}
