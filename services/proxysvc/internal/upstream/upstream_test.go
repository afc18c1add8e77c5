package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func request(url string, h proxy.Header, body string) proxy.UpstreamRequest {
	return proxy.UpstreamRequest{
		Deployment: &proxy.Deployment{APIBase: url, APIKey: secret.New("sk-ant-real")},
		Path:       "/v1/messages", Query: "beta=true&x=%20", Header: linesOf(http.Header(h)), Body: proxy.BodyOf([]byte(body)),
	}
}

// TestABodyInPiecesIsSentWhole sends bodies whose model has another name upstream, small
// and large, by each way to a host.
func TestABodyInPiecesIsSentWhole(t *testing.T) {
	t.Parallel()
	type seen struct {
		Body   string
		Length int64
	}
	got := make(chan seen, 1)
	for name, host := range hosts(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- seen{string(body), r.ContentLength}
	})) {
		for _, size := range []int{1, together} {
			padding := strings.Repeat("p", size)
			body := []byte(`{"model":"claude","padding":"` + padding + `"}`)
			scanned, bad := proxy.Scan(proxy.Messages, body)
			if bad != nil {
				t.Fatal(bad)
			}
			r := request(host.url, proxy.Header{}, "")
			r.Body = scanned.ForUpstream(body, "claude-sonnet-4-5")
			resp, err := host.client.Send(t.Context(), r)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", name, size, err)
			}
			resp.Body.Close()
			want := `{"model":"claude-sonnet-4-5","padding":"` + padding + `"}`
			if diff := cmp.Diff(seen{want, int64(len(want))}, <-got); diff != "" {
				t.Errorf("%s, %d bytes: sent (-want +got):\n%s", name, size, diff)
			}
		}
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

func TestTheBodyIsPassedByteForByte(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	tests := []struct {
		name string
		body []byte
	}{
		{"every byte there is", every},
		{"line ends and blanks as they are", []byte("\r\n{\t \"a\" : 1.0e+00 }\n\n")},
		{"more than fits one write", bytes.Repeat(every, 1<<13)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(w, r.Body) //nolint:errcheck // the test reads it
			}))
			defer server.Close()
			resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{}, string(tt.body)))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, tt.body) {
				t.Errorf("%d bytes came back, %v, want the %d that were sent", len(got), err, len(tt.body))
			}
		})
	}
}

// TestCredentials has the client's header hold what the real key must replace.
func TestCredentials(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		header, want http.Header
	}{
		{"none was sent", http.Header{}, http.Header{"X-Api-Key": {"sk-ant-real"}}},
		{"one was left in", http.Header{"X-Api-Key": {"sk-left", "sk-in"}}, http.Header{"X-Api-Key": {"sk-ant-real"}}},
		{
			"a user agent passes",
			http.Header{"User-Agent": {"claude-cli/2"}},
			http.Header{"X-Api-Key": {"sk-ant-real"}, "User-Agent": {"claude-cli/2"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got http.Header
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
			defer server.Close()
			tt.header.Set("Accept-Encoding", "identity")
			resp, err := New().Send(t.Context(), request(server.URL, proxy.Header(tt.header), "{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			tt.want.Set("Accept-Encoding", "identity")
			tt.want.Set("Content-Length", "2")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnEncryptedUpstream speaks HTTP/2, as Anthropic does.
func TestAnEncryptedUpstream(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s %q", r.Proto, r.Header.Get("X-Api-Key"), body, r.Header["User-Agent"])
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	c := New()
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	resp, err := c.Send(t.Context(), request(server.URL, proxy.Header{}, "{ }"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := `HTTP/2.0 sk-ant-real { } []`; err != nil || string(got) != want {
		t.Errorf("the upstream saw %s, %v, want %s", got, err, want)
	}
	if _, err := New().Send(t.Context(), request(server.URL, proxy.Header{}, "{}")); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
}

// TestNothingIsSentTwice breaks a connection that was used before, after it has
// taken the request. Go's transport would send a request with an
// Idempotency-Key again; it may have been billed already.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]proxy.Header{
		"without a key":                {},
		"with an Idempotency-Key":      {"Idempotency-Key": {"k"}},
		"with an X-Idempotency-Key":    {"X-Idempotency-Key": {"k"}},
		"with a key that is empty":     {"Idempotency-Key": {}},
		"with a key in another letter": {"idempotency-key": {"k"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests, connections atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // it is only drained
				if requests.Add(1) > 1 {
					panic(http.ErrAbortHandler)
				}
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			c := New()
			send := func() error {
				resp, err := c.Send(t.Context(), request(server.URL, maps.Clone(header), "{}"))
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
			if requests.Load() != 2 || connections.Load() != 1 {
				t.Errorf("the server got %d requests on %d connections, want 2 on the same", requests.Load(), connections.Load())
			}
		})
	}
}

func TestARedirectIsPassedOnAndNotFollowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/messages" {
			t.Error("the redirect was followed, with the real key")
		}
		code, err := strconv.Atoi(r.Header.Get("X-Code"))
		if err != nil {
			t.Error(err)
		}
		http.Redirect(w, r, "/elsewhere", code)
	}))
	t.Cleanup(server.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{"X-Code": {strconv.Itoa(code)}}, "{}"))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != code || resp.Header.Get("Location") != "/elsewhere" {
			t.Errorf("%d to %q, want %d to /elsewhere", resp.Status, resp.Header.Get("Location"), code)
		}
		resp.Body.Close()
	}
}

// TestACompressedAnswerStaysAsItIs has an upstream that compresses unasked.
func TestACompressedAnswerStaysAsItIs(t *testing.T) {
	t.Parallel()
	const packed = "\x1f\x8b pretends to be gzip"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked, ok := r.Header["Accept-Encoding"]; ok {
			t.Errorf("asks for %q, of which the client said nothing", asked)
		}
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, packed) //nolint:errcheck // the test reads it
	}))
	defer server.Close()
	resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{}, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != packed || resp.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%q, %v, %v, want %q", got, err, resp.Header, packed)
	}
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

func TestACancelledStreamEndsAtTheUpstream(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)          //nolint:errcheck // it is only drained
		io.WriteString(w, "event: ping\n\n") //nolint:errcheck // the test reads it
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := New().Send(ctx, request(server.URL, proxy.Header{}, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("event: ping\n\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := resp.Body.Read(first); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on: %v, want Canceled", err)
	}
	<-gone
}
