package autumn_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const secretKey = "am_sk_test_right"

// bundle is a simulator on a loopback port, with a clock that tests move.
type bundle struct {
	*autumn.Server
	http *httptest.Server

	mu  sync.Mutex
	now time.Time
}

func start(t *testing.T, opts autumn.Options) *bundle {
	t.Helper()
	b := &bundle{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	opts.SecretKey, opts.Now = secretKey, b.clock
	b.Server = autumn.New(opts)
	b.http = httptest.NewServer(b.Server)
	t.Cleanup(b.http.Close)
	return b
}

func (b *bundle) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bundle) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// answer is what came back; err is set if that was no whole HTTP answer.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (a answer) code(t *testing.T) string {
	t.Helper()
	var body struct{ Code string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Errorf("decode %q: %v", a.body, err)
	}
	return body.Code
}

// send sends a request of version 2.3.0; header overrides, empty values remove.
func (b *bundle) send(t *testing.T, method, path, body string, header map[string]string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.GetBody = nil // else Go's transport repeats a request with an Idempotency-Key by itself
	r.Header.Set("authorization", "Bearer "+secretKey)
	r.Header.Set("x-api-version", "2.3.0")
	for name, value := range header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	resp, err := b.http.Client().Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// must sends a request that must succeed and returns its body.
func (b *bundle) must(t *testing.T, method, path, body string) string {
	t.Helper()
	a := b.send(t, method, path, body, nil)
	if a.err != nil || a.status/100 != 2 {
		t.Fatalf("%s %s %s = %d %s %v", method, path, body, a.status, a.body, a.err)
	}
	return a.body
}

func key(k string) map[string]string { return map[string]string{"idempotency-key": k} }

// withCustomer starts a simulator with customer org that has 100 credits.
func withCustomer(t *testing.T) *bundle {
	t.Helper()
	b := start(t, autumn.Options{DefaultGrant: 100})
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
	return b
}

// applied asserts what the oracle says about org.
func (b *bundle) applied(t *testing.T, credits string, calls int) {
	t.Helper()
	got := b.Applied()["org"]
	if got.Credits.String() != credits || got.Calls != calls {
		t.Errorf("applied = %s in %d calls, want %s in %d", got.Credits, got.Calls, credits, calls)
	}
}

func TestRequestsAreAuthenticatedAndPinned(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	tests := []struct {
		name   string
		header map[string]string
		status int
		code   string
	}{
		{"the right key", nil, 200, ""},
		{"no key", map[string]string{"authorization": ""}, 401, "no_secret_key"},
		{"not a bearer", map[string]string{"authorization": "Basic x"}, 401, "no_secret_key"},
		{"a strange prefix", map[string]string{"authorization": "Bearer sk_x"}, 401, "invalid_request"},
		{"an unknown key", map[string]string{"authorization": "Bearer am_sk_wrong"}, 401, "invalid_secret_key"},
		{"a publishable key", map[string]string{"authorization": "Bearer am_pk_x"}, 401, "invalid_secret_key"},
		{"an unknown version", map[string]string{"x-api-version": "9.9.9"}, 400, "invalid_api_version"},
		{"a version by date", map[string]string{"x-api-version": "2026-03-17"}, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := b.send(t, "GET", "/v1/customers/org", "", tt.header)
			if a.status != tt.status {
				t.Fatalf("status = %d, want %d: %s", a.status, tt.status, a.body)
			}
			if tt.code == "" {
				return
			}
			if got := a.code(t); got != tt.code || !strings.Contains(a.body, `"env":"sandbox"`) {
				t.Errorf("body = %s, want code %s and the env", a.body, tt.code)
			}
			if strings.Contains(a.body, "wrong") {
				t.Errorf("body = %s shows the key", a.body)
			}
		})
	}
}

// TestLocksAreAtomic sends one lock many times at once.
func TestCustomersAreGotOrCreated(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 10, Env: "live"})
	created := b.must(t, "POST", "/v1/customers", `{"id":"org","name":"Org","metadata":{"a":1}}`)
	again := b.must(t, "POST", "/v1/customers.get_or_create", `{"customer_id":"org","name":"Other"}`)
	read := b.must(t, "GET", "/v1/customers/org", "")
	rpc := b.must(t, "POST", "/v1/customers.get", `{"customer_id":"org"}`)
	for _, got := range []string{again, read, rpc} {
		if diff := cmp.Diff(created, got); diff != "" {
			t.Errorf("customer (-created +got):\n%s", diff)
		}
	}
	for _, part := range []string{`"name":"Org"`, `"env":"live"`, `"metadata":{"a":1}`, `"balances":{"credits":{"feature_id":"credits","granted":10,"remaining":10,"usage":0,`} {
		if !strings.Contains(created, part) {
			t.Errorf("customer = %s, want %s", created, part)
		}
	}
	old := b.send(t, "GET", "/v1/customers/org", "", map[string]string{"x-api-version": "1.2"})
	if !strings.Contains(old.body, `"features":{"credits":{"id":"credits","type":"static","balance":10,`) {
		t.Errorf("customer under 1.2 = %s", old.body)
	}
	if a := b.send(t, "GET", "/v1/customers/nobody", "", nil); a.code(t) != "customer_not_found" {
		t.Errorf("unknown = %s", a.body)
	}
	if a := b.send(t, "POST", "/v1/customers", `{"customer_id":"org"}`, nil); a.code(t) != "invalid_inputs" {
		t.Errorf("the wrong name for the id = %s, want invalid_inputs", a.body)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	allowed := func(fields string) bool {
		t.Helper()
		body := b.must(t, "POST", "/v1/check", `{"customer_id":"org","feature_id":"credits"`+fields+`}`)
		var got struct{ Allowed bool }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		return got.Allowed
	}
	if !allowed("") || !allowed(`,"required_balance":100`) || allowed(`,"required_balance":100.01`) {
		t.Error("allowed is not remaining >= required")
	}
	if allowed(`,"required_balance":101,"send_event":true`) {
		t.Error("more than there is was allowed")
	}
	b.applied(t, "0", 0)
	for range 2 { // the body's key is ignored
		if !allowed(`,"required_balance":40,"send_event":true,"idempotency_key":"k"`) {
			t.Error("not allowed, want allowed")
		}
	}
	b.applied(t, "80", 2)
}

func TestEventsAreListedLater(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for _, batch := range []string{"a", "b"} {
		b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":2,"properties":{"batch":"`+batch+`"}}`)
	}
	type page struct {
		List []struct {
			Value      autumn.Amount
			Properties map[string]string
			Deductions []struct{ Value autumn.Amount }
		}
		HasMore bool `json:"has_more"`
	}
	list := func(fields string) page {
		t.Helper()
		var p page
		body := b.must(t, "POST", "/v1/events/list", `{"customer_id":"org"`+fields+`}`)
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := list(""); len(p.List) != 0 {
		t.Errorf("at once: %+v, want nothing", p)
	}
	b.advance(3 * time.Second)
	if p := list(`,"limit":1`); len(p.List) != 1 || !p.HasMore || p.List[0].Properties["batch"] != "b" {
		t.Errorf("first page = %+v, want b and more", p)
	}
	p := list(`,"filter_by":{"batch":"a"},"custom_range":{"start":1795521600000,"end":1795521600000}`)
	if len(p.List) != 1 || p.List[0].Deductions[0].Value != autumn.Credits(2) {
		t.Errorf("filtered = %+v, want the event of batch a", p)
	}
	if p := list(`,"custom_range":{"start":1795521600001}`); len(p.List) != 0 {
		t.Errorf("later ones = %+v, want none", p)
	}
}

func TestResetForgets(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits"}`)
	b.must(t, "POST", "/__faults", `[{"fault":"html_502"}]`)
	b.must(t, "POST", "/__reset", "")
	if got := b.must(t, "GET", "/__applied", ""); got != "{}" {
		t.Errorf("applied = %s, want {}", got)
	}
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
}
