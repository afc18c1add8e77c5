package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/credential"
)

const testKey = "sk_test_0123456789"

// client talks to a server that plays a vendor.
func client(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return New(Options{
		Vendor: "ACME", URL: srv.URL + "/v1/", Key: credential.Source{Value: secret.New(testKey)},
		Header: http.Header{"Acme-Version": {"1"}}, Concurrency: 4, Timeout: 5 * time.Second,
	})
}

var post = Request{Method: http.MethodPost, Path: "/v1/things", Body: []byte(`{"a":1}`), ContentType: "application/json", Header: http.Header{"Idempotency-Key": {"k"}}}

func TestARequestCarriesTheKeyItsHeadersAndItsBody(t *testing.T) {
	t.Parallel()
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s %s %s %s %s", r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Acme-Version"),
			r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), raw)
	})
	want := "POST /v1/things Bearer " + testKey + ` 1 k application/json {"a":1}`
	if got := c.Do(t.Context(), post); got.Status != 200 || string(got.Body) != want {
		t.Errorf("Do = %d %s, want %s", got.Status, got.Body, want)
	}
}

// What is no whole answer says why, and whether the request can have left.
func TestWhatIsNoWholeAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	for _, row := range []struct {
		name    string
		handler http.HandlerFunc
		want    Response
	}{
		{"a redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusFound)
		}, Response{Status: 302}},
		{"an answer without end", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), maxAnswer+1)) // nobody may read all of it
		}, Response{Failure: "200 with an answer of over 1048576 bytes"}},
		{"a truncated answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"a":`)
		}, Response{Failure: "200 with a truncated answer: the connection was closed"}},
		{"a dropped connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Response{Failure: "the connection was closed"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := client(t, row.handler).Do(t.Context(), post)
			got.Body = nil
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("Do (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		came := make(chan struct{})
		c := client(t, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // only then is a client that leaves noticed
			close(came)
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-came; cancel(nil) }()
		if got := c.Do(ctx, post); got.Failure == "" || got.NeverSent {
			t.Errorf("Do = %+v, want a failure of what may have been sent", got)
		}
	})
}

func TestAServerThatIsNotThereWasNeverSentAnything(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c := New(Options{Vendor: "ACME", URL: srv.URL, Key: credential.Source{Value: secret.New(testKey)}, Concurrency: 1})
	if got := c.Do(t.Context(), post); !got.NeverSent || got.Failure == "" || strings.Contains(got.Failure, testKey) {
		t.Errorf("Do = %+v, want it never sent", got)
	}
	keyless := New(Options{Vendor: "ACME", URL: srv.URL, Concurrency: 1})
	if got := keyless.Do(t.Context(), post); !got.NeverSent || got.Failure != "there is no ACME_API_KEY" || keyless.Configured() {
		t.Errorf("Do without a key = %+v, want it never sent", got)
	}
}

// A connection that was kept from an earlier request may have carried this one.
func TestAKeptConnectionThatBreaksMayHaveCarriedTheRequest(t *testing.T) {
	t.Parallel()
	var posts atomic.Int64
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		if posts.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{}`)
	})
	c.Do(t.Context(), post)
	if got := c.Do(t.Context(), post); got.NeverSent || got.Failure == "" || posts.Load() != 2 {
		t.Errorf("Do = %+v after %d requests, want a failure that may have been sent, in one request", got, posts.Load())
	}
}

func TestAWaitIsReadInSecondsAndAsADate(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"7": true, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): true,
		"": false, "0": false, "-1": false, "soon": false, "1000001": false, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): false,
	} {
		c := client(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(429)
		})
		if got := c.Do(t.Context(), post).RetryAfter; (got > 0) != want || got > time.Hour {
			t.Errorf("Retry-After %q is read as %s", header, got)
		}
	}
}

func TestForeignTextIsCleanedForLogsAndPostgres(t *testing.T) {
	t.Parallel()
	c := client(t, http.NotFound)
	for text, want := range map[string]string{
		"Bearer " + testKey + " is\n\twrong": "Bearer [secret] is wrong",
		"a\x00b\xff":                         "ab?",
		strings.Repeat("ü", 301):             strings.Repeat("ü", 300) + "…",
	} {
		if got := c.Clean(text); got != want {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want)
		}
	}
}

// A check holds until the key changes or an answer refuses it.
func TestACheckHoldsUntilTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	status, checks := 200, 0
	c := client(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	check := func() error { checks++; return nil }
	for range 2 {
		if err := c.Once(check); err != nil {
			t.Fatal(err)
		}
	}
	if c.Do(t.Context(), post); checks != 1 {
		t.Errorf("checked %d times, want once", checks)
	}
	status = 401
	c.Do(t.Context(), post)
	if err := c.Once(check); err != nil || checks != 2 {
		t.Errorf("checked %d times after a refusal, want again", checks)
	}
}

func TestDecodeTakesOneObject(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{` {"a":1}
`: true, `{}{}`: false, `[{}]`: false, ``: false, `{"a":`: false, `null`: false} {
		if got := Decode([]byte(text), &map[string]any{}); got != want {
			t.Errorf("Decode(%q) = %t, want %t", text, got, want)
		}
	}
}

// Mistake 10: who sets no timeout has one all the same.
func TestMistake10ACallHasAnEnd(t *testing.T) {
	t.Parallel()
	if got := New(Options{Vendor: "ACME"}).http.Timeout; got != 10*time.Second {
		t.Errorf("a request may take %s, want 10s", got)
	}
}
