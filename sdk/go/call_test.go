package llmproxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const testKey = "sk-master-0123456789"

// seen is what a stand of a proxy got.
type seen struct {
	mu     sync.Mutex
	bodies []map[string]any
	paths  []string
}

// stand answers each call with the next answer, and with the last one after that.
func stand(t *testing.T, answers ...func(http.ResponseWriter)) (*Client, *seen) {
	t.Helper()
	s := &seen{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body := map[string]any{}
		json.Unmarshal(text, &body) //nolint:errcheck // a GET has none
		s.mu.Lock()
		s.bodies, s.paths = append(s.bodies, body), append(s.paths, r.Method+" "+r.URL.EscapedPath())
		answer := answers[min(len(s.bodies), len(answers))-1]
		s.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer "+testKey {
			t.Errorf("the credential is %q", r.Header.Get("Authorization"))
		}
		answer(w)
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL, MasterKey: testKey})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func says(status int, body string, headers ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body) //nolint:errcheck // the client sees it
	}
}

const (
	issued = `{"key":{"key_id":"key_1"},"secret":"sk-1","env":{}}`
	soon   = "retry-after: 0"
)

func TestIssuingIsRepeatedUnderOneIdempotencyKey(t *testing.T) {
	t.Parallel()
	cut := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	c, s := stand(t, says(503, `{"message":"not now"}`, soon), cut, says(200, issued))
	key, err := c.GenerateSessionAPIKey(t.Context(), SessionRequest{SessionID: "a b?", OrgID: "acme"})
	if err != nil || key.Key != "sk-1" || !key.Proxied {
		t.Fatalf("%v, %v", key, err)
	}
	if len(s.bodies) != 3 || s.paths[0] != "POST /v1/sessions/a%20b%3F/key" {
		t.Fatalf("%d calls, %v", len(s.bodies), s.paths)
	}
	first := s.bodies[0]["idempotency_key"]
	if first == "" || first == nil || s.bodies[1]["idempotency_key"] != first || s.bodies[2]["idempotency_key"] != first {
		t.Errorf("the idempotency keys differ: %v", s.bodies)
	}
}

// TestPausesAreBounded has more attempts than a duration has bits.
func TestPausesAreBounded(t *testing.T) {
	t.Parallel()
	for attempt := range 200 {
		if d := backoff(attempt); d < firstPause/2 || d > longestPause {
			t.Errorf("the pause after attempt %d is %v", attempt, d)
		}
	}
}

func TestOnlyWhatIsSafeIsRepeated(t *testing.T) {
	t.Parallel()
	issue := func(ctx context.Context, c *Client) error {
		_, err := c.GenerateSessionAPIKey(ctx, SessionRequest{SessionID: "s", OrgID: "acme"})
		return err
	}
	revoke := func(target Target) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error {
			_, err := c.RevokeVirtualKey(ctx, target)
			return err
		}
	}
	for _, tt := range []struct {
		name      string
		do        func(context.Context, *Client) error
		status    int
		body      string
		header    string
		calls     int
		retryable bool
	}{
		{"a wrong request", issue, 400, `{}`, soon, 1, false},
		{"a wrong credential", issue, 401, `{}`, soon, 1, false},
		{"an error inside", issue, 500, `{}`, soon, 1, false},
		{"too many requests", issue, 429, `{}`, soon, 3, true},
		{"an overloaded proxy", issue, 503, `{}`, soon, 3, true},
		{"a conflict", issue, 409, `{"code":6}`, soon, 1, false},
		{"a change meanwhile", issue, 409, `{"code":10}`, soon, 3, true},
		{"told not to", issue, 503, `{}`, "x-should-retry: false", 1, false},
		{"revoking one key", revoke(Target{Key: "sk-1"}), 503, `{}`, soon, 3, true},
		{"revoking a session, which may have a new key", revoke(Target{SessionID: "s"}), 503, `{}`, soon, 1, true},
		{"revoking an alias, which may be taken anew", revoke(Target{Alias: "a"}), 503, `{}`, soon, 1, true},
		{"revoking a session, turned away", revoke(Target{SessionID: "s"}), 429, `{}`, soon, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, s := stand(t, says(tt.status, tt.body, tt.header))
			err := tt.do(t.Context(), c)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != tt.status || e.Retryable != tt.retryable || len(s.bodies) != tt.calls {
				t.Errorf("%v after %d calls, want %d after %d", err, len(s.bodies), tt.status, tt.calls)
			}
		})
	}
}

func TestErrorsSayWhatTheProxySaysWithoutSecrets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, want string }{
		{"our shape", `{"code":3,"message":"duration: no"}`, "end a session: HTTP 400: duration: no"},
		{"LiteLLM's shape", `{"error":{"message":"duration: no"}}`, "end a session: HTTP 400: duration: no"},
		{"something in between", `<html>` + testKey, "end a session: HTTP 400: bad request"},
		{"a master key", `{"message":"no ` + testKey + `"}`, "end a session: HTTP 400: no [secret]"},
		{"a virtual key", `{"message":"no sk-abcdefgh12345"}`, "end a session: HTTP 400: no [secret]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _ := stand(t, says(400, tt.body))
			if _, err := c.EndSession(t.Context(), "s"); err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestAnswersOfSomethingElseAreErrors(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"<html>", "{}"} {
		c, _ := stand(t, says(200, body))
		if _, err := c.GenerateSessionAPIKey(t.Context(), SessionRequest{SessionID: "s", OrgID: "acme"}); err == nil || !strings.Contains(err.Error(), notOurs) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestTimeoutsAndCancellation(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 9), make(chan struct{})
	c, s := stand(t, func(http.ResponseWriter) { arrived <- struct{}{}; <-release })
	t.Cleanup(func() { close(release) }) // before the stand's own
	slow := *c
	slow.timeout, slow.retries = time.Nanosecond, 0
	_, err := slow.EndSession(t.Context(), "s")
	if e, ok := errors.AsType[*Error](err); !ok || !e.Retryable || e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err = c.GenerateSessionAPIKey(ctx, SessionRequest{SessionID: "s", OrgID: "acme"})
	if e, ok := errors.AsType[*Error](err); !ok || e.Retryable || !errors.Is(err, context.Canceled) {
		t.Errorf("after the cancellation: %v", err)
	}
	if len(s.bodies) > 2 {
		t.Errorf("%d calls", len(s.bodies))
	}
}

func TestIDsThatNoPathCanHold(t *testing.T) {
	t.Parallel()
	c, s := stand(t, says(200, `{}`))
	for _, id := range []string{"", ".", "..", "a/b"} {
		if _, err := c.EndSession(t.Context(), id); err == nil {
			t.Errorf("the session %q was ended", id)
		}
		if _, _, err := c.EnsureTeamExists(t.Context(), id, TeamOptions{}); err == nil {
			t.Errorf("the team %q was ensured", id)
		}
	}
	if len(s.bodies) != 0 {
		t.Errorf("calls: %v", s.paths)
	}
}

func TestTargetsAreOneThing(t *testing.T) {
	t.Parallel()
	c, s := stand(t, says(200, `{}`))
	for _, target := range []Target{{}, {Key: "sk-1", Alias: "a"}} {
		if _, err := c.RevokeVirtualKey(t.Context(), target); err == nil {
			t.Errorf("%v was taken", target)
		}
	}
	if _, err := c.RevokeVirtualKey(t.Context(), Target{Key: "sk-1"}); err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(s.bodies); strings.Contains(string(text), "sk-1") || len(s.bodies) != 1 {
		t.Errorf("sent: %s", text)
	}
}
