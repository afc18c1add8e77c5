package autumn_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const trackOne = `{"customer_id":"org","feature_id":"credits","value":4,"lock":{"enabled":true,"lock_id":"l"}}`

// TestFaults sends one track that meets a fault and then the same again, once
// under a key and once under a lock.
func TestFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		fault        string
		status       int    // of the first; zero: the connection drops
		applied      string // by the first
		retryWithKey int    // status of the second, under the same Idempotency-Key
		thenApplied  string // by both
		retryLocked  int    // status of the second, under the same lock alone
	}{
		{autumn.FaultDropBeforeApply, 0, "0", 200, "4", 200},
		{autumn.FaultDropAfterApply, 0, "4", 409, "4", 409},
		{autumn.FaultClaimThenDie, 0, "0", 409, "0", 200},
		{autumn.FaultError500AfterApply, 500, "4", 200, "8", 409},
		{autumn.FaultError503, 503, "0", 200, "4", 200},
		{autumn.FaultRateLimited, 429, "0", 200, "4", 200},
		{autumn.FaultSlowApply, 200, "4", 409, "4", 409},
		{autumn.FaultAccepted202Lost, 202, "0", 409, "0", 200},
		{autumn.FaultHTML502, 502, "0", 200, "4", 200},
		{autumn.FaultTruncatedBody, 200, "4", 409, "4", 409},
		{autumn.FaultNoBalance, 200, "0", 409, "0", 200},
		{autumn.FaultPartial, 200, "2", 409, "2", 409},
		{autumn.FaultAccepted202Late, 202, "0", 409, "4", 409},
		{autumn.FaultQueuedTwice, 202, "0", 409, "4", 409},
		{autumn.FaultError503AfterApply, 503, "4", 200, "8", 409},
		{autumn.FaultKeyStoreDown, 200, "4", 200, "8", 409},
		{autumn.FaultKeyLifeCut, 200, "4", 200, "8", 409},
		{autumn.FaultReleaseLost, 200, "4", 409, "4", 409},
		{autumn.FaultReceiptsCut, 200, "4", 409, "4", 409},
		{autumn.FaultCycleReset, 200, "4", 409, "4", 409},
		{autumn.FaultPlanChange, 200, "4", 409, "4", 409},
		{autumn.FaultCustomerDeleted, 404, "0", 404, "0", 404},
		{autumn.FaultFeatureRenamed, 404, "0", 200, "4", 200},
		{autumn.FaultClockBehind, 200, "4", 409, "4", 409},
		{autumn.FaultVersionDrift, 200, "4", 409, "4", 409},
		{autumn.FaultMemoryLoss, 200, "4", 409, "4", 409},
		{autumn.FaultEventLost, 200, "4", 409, "4", 409},
		{autumn.FaultReset, 0, "4", 409, "4", 409},
		{autumn.FaultHalfOpen, 0, "4", 409, "4", 409},
		{autumn.FaultSlowBody, 200, "4", 409, "4", 409},
		{autumn.FaultArrivesLate, 0, "0", 409, "4", 409},
		{autumn.FaultNotJSON, 200, "4", 409, "4", 409},
	}
	for _, tt := range tests {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			rule := autumn.Fault{Path: "/v1/balances.track", Fault: tt.fault, Times: 1, DelayMS: 1}
			keyed := strings.Replace(trackOne, `"enabled":true`, `"enabled":false`, 1)

			b := withFault(t, rule)
			first := b.send(t, "POST", "/v1/track", keyed, key("k"))
			if first.status != tt.status {
				t.Errorf("status = %d (%v), want %d", first.status, first.err, tt.status)
			}
			if broken := tt.status == 0 || tt.fault == autumn.FaultTruncatedBody || tt.fault == autumn.FaultSlowBody; (first.err != nil) != broken {
				t.Errorf("error = %v, want one: %v", first.err, broken)
			}
			if got := b.Applied()["org"].Credits.String(); got != tt.applied {
				t.Errorf("applied = %s, want %s", got, tt.applied)
			}
			b.advance(time.Second) // what is queued for 1 ms is due, and a life of 1 ms over
			if second := b.send(t, "POST", "/v1/track", keyed, key("k")); second.status != tt.retryWithKey {
				t.Errorf("again = %d %s, want %d", second.status, second.body, tt.retryWithKey)
			}
			if got := b.Applied()["org"].Credits.String(); got != tt.thenApplied {
				t.Errorf("applied in the end = %s, want %s", got, tt.thenApplied)
			}

			b = withFault(t, rule)
			b.send(t, "POST", "/v1/track", trackOne, nil)
			b.advance(time.Second)
			if second := b.send(t, "POST", "/v1/track", trackOne, nil); second.status != tt.retryLocked {
				t.Errorf("again with a lock = %d %s, want %d", second.status, second.body, tt.retryLocked)
			}
			if got := b.AppliedByKey()["l"]; got.Calls > 1 {
				t.Errorf("with a lock applied %d times", got.Calls)
			}
		})
	}
}

func withFault(t *testing.T, rules ...autumn.Fault) *bundle {
	t.Helper()
	b := withCustomer(t)
	if err := b.SetFaults(rules...); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFaultAnswersHaveTheirShape(t *testing.T) {
	t.Parallel()
	b := withFault(t,
		autumn.Fault{Fault: autumn.FaultError503, Nth: 1},
		autumn.Fault{Fault: autumn.FaultRateLimited, Nth: 2, RetryAfterS: 7},
		autumn.Fault{Fault: autumn.FaultRateLimited, Nth: 3},
		autumn.Fault{Fault: autumn.FaultHTML502, Nth: 4},
	)
	var got []string
	for range 5 {
		a := b.send(t, "GET", "/v1/customers/org", "", nil)
		kind, _, _ := strings.Cut(a.header.Get("content-type"), ";")
		code := ""
		if kind == "application/json" {
			code = a.code(t)
		}
		got = append(got, strings.Join([]string{http.StatusText(a.status), kind, code, a.header.Get("retry-after")}, "|"))
	}
	want := []string{
		"Service Unavailable|application/json|service_unavailable|1",
		"Too Many Requests|application/json|rate_limit_exceeded|7",
		"Too Many Requests|application/json|rate_limit_exceeded|",
		"Bad Gateway|text/html||",
		"OK|application/json||",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestFaultsChooseTheirRequests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		rule autumn.Fault
		want string // of ten requests, x is a fault
	}{
		{"all", autumn.Fault{}, "xxxxxxxxxx"},
		{"the third", autumn.Fault{Nth: 3}, "..x......."},
		{"three", autumn.Fault{Times: 3}, "xxx......."},
		{"two from the fourth on", autumn.Fault{Nth: 4, Times: 2}, "...xx....."},
		{"of another customer", autumn.Fault{CustomerID: "other"}, ".........."},
		{"of this customer", autumn.Fault{CustomerID: "org", Nth: 1}, "x........."},
		{"of another path", autumn.Fault{Path: "/v1/check"}, ".........."},
		{"some", autumn.Fault{Probability: 0.5, Seed: 7}, "..xxxxxx.x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.rule.Fault = autumn.FaultError503
			b := withFault(t, tt.rule)
			var got strings.Builder
			for range 10 {
				if b.send(t, "GET", "/v1/customers/org", "", nil).status == 503 {
					got.WriteByte('x')
					continue
				}
				got.WriteByte('.')
			}
			if got.String() != tt.want {
				t.Errorf("faults = %s, want %s", got.String(), tt.want)
			}
		})
	}
}

func TestASlowTrackIsAppliedAfterItsClientHasGone(t *testing.T) {
	t.Parallel()
	b := withFault(t, autumn.Fault{Path: "/v1/track", Fault: autumn.FaultSlowApply, DelayMS: 100})
	client := b.http.Client()
	client.Timeout = 20 * time.Millisecond
	if a := b.send(t, "POST", "/v1/track", trackOne, nil); a.err == nil {
		t.Fatalf("answer = %+v, want a timeout", a)
	}
	b.http.Close() // waits for the handler
	b.applied(t, "4", 1)
}

func TestFaultRulesAreChecked(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for _, bad := range []string{`[{"fault":"no_such"}]`, `[{"fault":"html_502","tims":1}]`, `{}`} {
		if a := b.send(t, "POST", "/__faults", bad, nil); a.status != 400 {
			t.Errorf("POST /__faults %s = %d, want 400", bad, a.status)
		}
	}
	b.must(t, "POST", "/__faults", `[{"fault":"error_503","nth":2}]`)
	b.must(t, "GET", "/v1/customers/org", "")
	got := b.must(t, "GET", "/__faults", "")
	if want := `[{"fault":"error_503","nth":2,"met":1,"fired":0}]`; got != want {
		t.Errorf("GET /__faults = %s, want %s", got, want)
	}
}

func TestOracleIsExact(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for range 10 {
		b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":0.1000001}`)
	}
	if got, want := b.must(t, "GET", "/__applied", ""), `{"org":{"credits":1.000001,"calls":10}}`; got != want {
		t.Errorf("applied = %s, want %s", got, want)
	}
	b.must(t, "POST", "/v1/track", trackOne)
	if got, want := b.must(t, "GET", "/__applied?by=key", ""), `{"l":{"customer_id":"org","credits":4,"calls":1}}`; got != want {
		t.Errorf("applied by key = %s, want %s", got, want)
	}
}
