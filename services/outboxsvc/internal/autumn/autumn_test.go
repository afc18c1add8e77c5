package autumn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	sim "github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const testKey = "am_sk_test_0123456789"

var charge = relay.Charge{
	ChargeID: "01989000-0000-7000-8000-000000000001", TeamID: "acme", Seq: 4, AmountNanoUSD: 31_500_010, EventCount: 7, Attempts: 1,
}

// client talks to a server that plays Autumn.
func client(t *testing.T, h http.Handler, change ...func(*Options)) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	opt := Options{URL: srv.URL + "/v1/", Key: secret.New(testKey), FeatureID: "credits", InstallationID: "test", Concurrency: 4, Timeout: 5 * time.Second}
	for _, c := range change {
		c(&opt)
	}
	return New(opt)
}

func newSim(opt sim.Options) *sim.Server {
	opt.SecretKey = testKey
	return sim.New(opt)
}

func TestPostSendsExactlyThis(t *testing.T) {
	t.Parallel()
	var header http.Header
	var path, body string
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		header, path, body = r.Header, r.Method+" "+r.URL.Path, string(raw)
		fmt.Fprint(w, `{"value":3,"balance":{"remaining":1e2},"deductions":[{"value":3.150001}]}`)
	}), func(o *Options) { o.Env = "live" })
	got := c.Post(t.Context(), charge)
	const want = `{"customer_id":"acme","feature_id":"credits","value":3.150001,"overage_behavior":"overflow",` +
		`"lock":{"enabled":true,"lock_id":"llm-proxy:live:test:batch:01989000-0000-7000-8000-000000000001"},` +
		`"properties":{"charge_id":"01989000-0000-7000-8000-000000000001","event_count":"7","seq":"4"}}`
	if diff := cmp.Diff(want, body); diff != "" || path != "POST /v1/track" {
		t.Errorf("%s with body (-want +got):\n%s", path, diff)
	}
	if header.Get("Authorization") != "Bearer "+testKey || header.Get("x-api-version") != "2.3.0" || header.Get("Idempotency-Key") != "" {
		t.Errorf("header = %v", header)
	}
	answer := relay.Answer{Status: 200, Says: true, Deducted: 3_150_001, HasBalance: true, Balance: "100", Feature: "credits"}
	if diff := cmp.Diff(answer, got); diff != "" {
		t.Errorf("Post (-want +got):\n%s", diff)
	}
}

// What the simulator says is understood, from the first attempt to the last.
func TestPostAgainstTheSimulator(t *testing.T) {
	t.Parallel()
	s := newSim(sim.Options{})
	c := client(t, s)
	post := func() relay.Verdict {
		t.Helper()
		return relay.Classify(charge, c.Post(t.Context(), charge), relay.Collapsing)
	}
	if v := post(); v.Do != relay.CreateCustomer {
		t.Errorf("without a customer: %+v", v)
	}
	if err := c.CreateCustomer(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if v := post(); v.Outcome != relay.NotApplied || !strings.Contains(v.Error, "attach a plan") {
		t.Errorf("without a plan: %+v", v)
	}
	s.Grant("acme", sim.Credits(2)) // less than the charge: it overflows
	if v := post(); v.Outcome != relay.Applied || v.Proof != relay.ProofDeductions || v.SinkBalanceCredits != "0" {
		t.Errorf("with a plan: %+v", v)
	}
	again := charge
	again.Unsure = true
	if v := relay.Classify(again, c.Post(t.Context(), again), relay.Collapsing); v.Outcome != relay.Applied || v.Proof != relay.ProofLock {
		t.Errorf("again: %+v", v)
	}
	applied := s.Applied()["acme"]
	if applied.Credits.String() != "3.150001" || applied.Calls != 1 {
		t.Errorf("the simulator applied %+v, want 3.150001 once", applied)
	}
	got, err := c.Sight(t.Context(), "acme")
	if got.Since.IsZero() || got.Since.After(time.Now()) {
		t.Errorf("the customer is from %s, want before now", got.Since)
	}
	got.Since = time.Time{}
	if diff := cmp.Diff(relay.Sighting{Remaining: "0", Used: "3.150001", Granted: "2", Signed: "-1.1500010000"}, got); diff != "" || err != nil {
		t.Errorf("Sight %v (-want +got):\n%s", err, diff)
	}
}

func TestAnswersThatAreNotAutumns(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    relay.Answer
	}{
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>")
		}, relay.Answer{Status: 502, Foreign: true}},
		{"an empty body", func(http.ResponseWriter, *http.Request) {}, relay.Answer{Status: 200, Foreign: true}},
		{
			"JSON that is no object", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"deductions":[]}]`) },
			relay.Answer{Status: 200, Foreign: true},
		},
		{"two objects", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}{}`) }, relay.Answer{Status: 200, Foreign: true}},
		{
			"a deduction without a value", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"deductions":[{}]}`) },
			relay.Answer{Status: 200, Foreign: true},
		},
		{"a truncated answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"deductions":`)
		}, relay.Answer{Failure: "200 with a truncated answer: the connection was closed"}},
		{
			"a dropped connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			relay.Answer{Failure: "the connection was closed"},
		},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // only then is a client that leaves noticed
			<-r.Context().Done()
		}, relay.Answer{Failure: "no answer in time"}},
		{"a wait in seconds", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			fmt.Fprint(w, `{"code":"rate_limit_exceeded","message":"wait for `+testKey+`"}`)
		}, relay.Answer{Status: 429, Code: "rate_limit_exceeded", Message: "wait for [secret]", RetryAfter: 7 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := client(t, tt.handler, func(o *Options) {
				if tt.name == "no answer" {
					o.Timeout = 50 * time.Millisecond
				}
			})
			tt.want.Feature = "credits"
			if diff := cmp.Diff(tt.want, c.Post(t.Context(), charge)); diff != "" {
				t.Errorf("Post (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadyComparesTheEnvironment(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		env  string
		opt  sim.Options
		want fault.Kind
		ok   bool
	}{
		{"none is wanted", "", sim.Options{Env: "live"}, 0, true},
		{"the right one", "live", sim.Options{Env: "live"}, 0, true},
		{"the wrong one", "live", sim.Options{Env: "sandbox"}, fault.Precondition, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := client(t, newSim(tt.opt), func(o *Options) { o.Env = tt.env })
			if err := c.Ready(t.Context()); (err == nil) != tt.ok || fault.KindOf(err) != tt.want && !tt.ok {
				t.Errorf("Ready = %v, want ok: %t", err, tt.ok)
			}
		})
	}
	t.Run("a wrong key is refused without being shown", func(t *testing.T) {
		t.Parallel()
		c := client(t, newSim(sim.Options{}), func(o *Options) { o.Env, o.Key = "live", secret.New("am_sk_wrong") })
		err := c.Ready(t.Context())
		if fault.KindOf(err) != fault.Precondition || strings.Contains(fault.Cause(err), "wrong") {
			t.Errorf("Ready = %v, want Precondition", err)
		}
	})
	t.Run("a server that is down is not the wrong one", func(t *testing.T) {
		t.Parallel()
		c := client(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), func(o *Options) { o.Env = "live" })
		if err := c.Ready(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Ready = %v, want Unavailable", err)
		}
	})
}

func TestBalanceOfATeamThatAutumnDoesNotHave(t *testing.T) {
	t.Parallel()
	c := client(t, newSim(sim.Options{}))
	if _, err := c.Sight(t.Context(), "nobody/../x"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Sight of a stranger = %v, want NotFound", err)
	}
	if err := c.CreateCustomer(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sight(t.Context(), "acme"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Sight without a plan = %v, want NotFound", err)
	}
}

func TestTheKeyIsInNoText(t *testing.T) {
	t.Parallel()
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		json.NewEncoder(w).Encode(map[string]string{"code": "internal_error", "message": "header was " + r.Header.Get("Authorization")}) //nolint:errcheck // it shows in the test
	}))
	answer := c.Post(t.Context(), charge)
	err := c.CreateCustomer(context.WithoutCancel(t.Context()), "acme")
	if text := fmt.Sprintf("%+v %+v %v %s", answer, c.opt, err, fault.Cause(err)); strings.Contains(text, testKey) {
		t.Errorf("the key is in %s", text)
	}
}
