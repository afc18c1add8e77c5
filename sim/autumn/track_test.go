package autumn_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

func TestTrackIsChecked(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	tests := []struct {
		name, body string
		status     int
		code       string
	}{
		{"not JSON", `{`, 400, "invalid_inputs"},
		{"no customer", `{"feature_id":"credits"}`, 400, "invalid_inputs"},
		{"a customer in the wrong case", `{"Customer_ID":"org","feature_id":"credits"}`, 400, "invalid_inputs"},
		{"neither feature nor event", `{"customer_id":"org"}`, 400, "invalid_inputs"},
		{"feature and event", `{"customer_id":"org","feature_id":"credits","event_name":"x"}`, 400, "invalid_inputs"},
		{"a value that is text", `{"customer_id":"org","feature_id":"credits","value":"1"}`, 400, "invalid_inputs"},
		{"a value out of range", `{"customer_id":"org","feature_id":"credits","value":1e30}`, 400, "invalid_inputs"},
		{"an unknown overage", `{"customer_id":"org","feature_id":"credits","overage_behavior":"deny"}`, 400, "invalid_inputs"},
		{"the future", `{"customer_id":"org","feature_id":"credits","timestamp":1795521600001}`, 400, "invalid_inputs"},
		{"a lock without a name", `{"customer_id":"org","feature_id":"credits","lock":{"enabled":true}}`, 400, "invalid_inputs"},
		{"a long lock", `{"customer_id":"org","feature_id":"credits","lock":{"enabled":true,"lock_id":"` + strings.Repeat("x", 257) + `"}}`, 400, "invalid_inputs"},
		{"an unknown feature before an unknown customer", `{"customer_id":"nobody","feature_id":"nothing"}`, 404, "feature_not_found"},
		{"an unknown event", `{"customer_id":"org","event_name":"nothing"}`, 404, "invalid_request"},
		{"an unknown customer", `{"customer_id":"nobody","feature_id":"credits"}`, 404, "customer_not_found"},
		{"an entity", `{"customer_id":"org","feature_id":"credits","entity_id":"e"}`, 404, "entity_not_found"},
		{"now", `{"customer_id":"org","feature_id":"credits","timestamp":1795521600000}`, 200, ""},
	}
	if now := b.clock().UnixMilli(); now != 1795521600000 {
		t.Fatalf("the clock is at %d", now)
	}
	for _, tt := range tests {
		a := b.send(t, "POST", "/v1/track", tt.body, nil)
		if a.status != tt.status || a.code(t) != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.status, a.body, tt.status, tt.code)
		}
	}
	b.applied(t, "1", 1)
}

func TestTrackDeducts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fields string
		remaining    string
		usage        string
		deducted     string // empty: no deduction
	}{
		{"one by default", ``, "99", "1", "1"},
		{"an exact fraction", `,"value":0.0000000001`, "99.9999999999", "0.0000000001", "0.0000000001"},
		{"an exponent", `,"value":1.25e1`, "87.5", "12.5", "12.5"},
		{"rounded to ten decimals", `,"value":0.00000000025`, "99.9999999997", "0.0000000003", "0.0000000003"},
		{"what fits, under cap", `,"value":150`, "0", "100", "100"},
		{"all, under overflow", `,"value":150,"overage_behavior":"overflow"`, "0", "150", "150"},
		{"a misspelt overage_behaviour is ignored", `,"value":150,"overage_behaviour":"overflow"`, "0", "100", "100"},
		{"no refund beyond the grant, under cap", `,"value":-5`, "100", "0", ""},
		{"a refund beyond the grant, under overflow", `,"value":-5,"overage_behavior":"overflow"`, "105", "-5", "-5"},
		{"nothing", `,"value":0`, "100", "0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := withCustomer(t)
			body := b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits"`+tt.fields+`}`)
			var got struct {
				Balance struct {
					Remaining, Usage autumn.Amount
				}
				Deductions []struct {
					FeatureID string `json:"feature_id"`
					BalanceID string `json:"balance_id"`
					Value     autumn.Amount
				}
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if got.Balance.Remaining.String() != tt.remaining || got.Balance.Usage.String() != tt.usage {
				t.Errorf("balance = %+v, want remaining %s, usage %s", got.Balance, tt.remaining, tt.usage)
			}
			if tt.deducted == "" {
				if got.Deductions == nil || len(got.Deductions) != 0 {
					t.Errorf("deductions in %s, want []", body)
				}
				return
			}
			if len(got.Deductions) != 1 || got.Deductions[0].Value.String() != tt.deducted || got.Deductions[0].BalanceID == "" {
				t.Errorf("deductions = %+v, want %s", got.Deductions, tt.deducted)
			}
			b.applied(t, tt.deducted, 1)
		})
	}
}

func TestTrackAnswersByVersion(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	const body = `{"customer_id":"org","feature_id":"credits","value":2}`
	want := map[string]string{
		"2.3.0": `{"customer_id":"org","value":2,"balance":{"feature_id":"credits","granted":100,"remaining":98,"usage":2,` +
			`"unlimited":false,"overage_allowed":false,"max_purchase":null,"next_reset_at":null,` +
			`"breakdown":[{"id":"bal_000001","included_grant":100,"remaining":98,"usage":2}]},` +
			`"deductions":[{"feature_id":"credits","balance_id":"bal_000001","value":2}]}`,
		"": `{"id":"placeholder","code":"event_received","customer_id":"org","feature_id":"credits"}`,
	}
	for _, version := range []string{"2.3.0", ""} {
		a := b.send(t, "POST", "/v1/balances.track", body, map[string]string{"x-api-version": version})
		if diff := cmp.Diff(want[version], a.body); diff != "" {
			t.Errorf("version %q (-want +got):\n%s", version, diff)
		}
	}
}

func TestACustomerWithoutABalanceIsNotCharged(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{})
	b.must(t, "POST", "/v1/customers.get_or_create", `{"customer_id":"org"}`)
	const body = `{"customer_id":"org","feature_id":"credits","lock":{"enabled":true,"lock_id":"l"}}`
	got := b.must(t, "POST", "/v1/track", body)
	if want := `{"customer_id":"org","value":1,"balance":null,"deductions":[]}`; got != want {
		t.Errorf("track = %s, want %s", got, want)
	}
	b.must(t, "POST", "/__grant", `{"customer_id":"org","credits":0.5}`)
	b.must(t, "POST", "/v1/track", body) // no receipt was written
	b.applied(t, "0.5", 1)
}

func TestIdempotencyKeysAreClaimed(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	const track = `{"customer_id":"org","feature_id":"credits"}`
	if a := b.send(t, "POST", "/v1/track", `{}`, key("k")); a.status != 400 {
		t.Errorf("a bad request = %d, want 400", a.status)
	}
	if a := b.send(t, "POST", "/v1/track", track, key("k")); a.status != 200 {
		t.Errorf("after a 400 the key is free again: %d %s", a.status, a.body)
	}
	if a := b.send(t, "POST", "/v1/check", track, key("k")); a.status != 409 || a.code(t) != "duplicate_idempotency_key" {
		t.Errorf("the same key on another path = %d %s, want 409", a.status, a.body)
	}
	b.advance(24*time.Hour - 1)
	if a := b.send(t, "POST", "/v1/track", track, key("k")); a.status != 409 {
		t.Errorf("within 24 hours = %d, want 409", a.status)
	}
	b.advance(1)
	if a := b.send(t, "POST", "/v1/track", track, key("k")); a.status != 200 {
		t.Errorf("after 24 hours = %d, want 200", a.status)
	}
	b.applied(t, "2", 2)
	if got := b.AppliedByKey()["k"]; got.Calls != 2 || got.CustomerID != "org" {
		t.Errorf("by key = %+v, want two calls", got)
	}
}

func TestBodyKeysAreClaimedApart(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	const body = `{"customer_id":"org","feature_id":"credits","idempotency_key":"k"}`
	for i, want := range []int{200, 409} {
		if a := b.send(t, "POST", "/v1/track", body, nil); a.status != want {
			t.Errorf("track %d = %d, want %d", i, a.status, want)
		}
	}
	if a := b.send(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits"}`, key("k")); a.status != 200 {
		t.Errorf("the same key in the header = %d, want 200", a.status)
	}
}

func TestLocksAreAtomic(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	const body = `{"customer_id":"org","feature_id":"credits","value":3,"lock":{"enabled":true,"lock_id":"l"}}`
	statuses := make([]int, 20)
	var wg sync.WaitGroup
	for i := range statuses {
		wg.Go(func() { statuses[i] = b.send(t, "POST", "/v1/track", body, nil).status })
	}
	wg.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	if diff := cmp.Diff(map[int]int{200: 1, 409: 19}, count); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	b.applied(t, "3", 1)
	if a := b.send(t, "POST", "/v1/track", body, nil); a.code(t) != "lock_already_exists" {
		t.Errorf("again = %s, want lock_already_exists", a.body)
	}
	b.advance(24 * time.Hour)
	b.must(t, "POST", "/v1/track", body)
	if got := b.AppliedByKey()["l"]; got.Credits.String() != "6" || got.Calls != 2 {
		t.Errorf("by key = %+v, want 6 in 2 calls", got)
	}
}

func TestUnknownCustomersAreCreatedOnlyByOldVersions(t *testing.T) {
	t.Parallel()
	const body = `{"customer_id":"new","feature_id":"credits"}`
	b := start(t, autumn.Options{DefaultGrant: 5})
	if a := b.send(t, "POST", "/v1/check", body, nil); a.code(t) != "customer_not_found" {
		t.Errorf("check = %s, want customer_not_found", a.body)
	}
	if a := b.send(t, "POST", "/v1/track", body, map[string]string{"x-api-version": "1.2"}); a.status != 200 {
		t.Errorf("track under 1.2 = %d, want 200", a.status)
	}
	auto := start(t, autumn.Options{DefaultGrant: 5, AutoCreateCustomers: true})
	auto.must(t, "POST", "/v1/track", body)
}
