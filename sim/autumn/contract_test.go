package autumn_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const (
	org    = `"customer_id":"org"`
	ofOrg  = org + `,"feature_id":"credits"`
	locked = `,"lock":{"enabled":true,"lock_id":"l"}`
)

// TestTheContract is the list of what the simulator serves and refuses, endpoint by
// endpoint. Of each a new server gets the requests before the last, which must
// succeed, and then the last. What takes more than an answer to see has tests of its
// own: keys, locks and their ends, the order of rows, batches, checks that fail
// open, entities, webhooks, and each fault.
func TestTheContract(t *testing.T) {
	t.Parallel()
	const track, check, finalize, update, create = "/v1/track", "/v1/check", "/v1/balances.finalize", "/v1/balances/update", "/v1/balances.create"
	for _, row := range []struct {
		path, body string
		status     int
		part       string
		before     [][2]string
	}{
		{track, `{` + ofOrg + `,"value":30}`, 200, `"deductions":[{"feature_id":"credits","balance_id":"bal_000001","value":30}]`, nil},
		{"/v1/events", `{` + ofOrg + `}`, 200, `"value":1`, nil},
		{"/v1/balances.track", `{` + ofOrg + `,"async":true}`, 202, `"balance":null`, nil},
		{track, `{` + org + `,"event_name":"message"}`, 200, `"deductions":[{"feature_id":"credits"`, nil},
		{track, `{` + ofOrg + `,"value":130}`, 200, `"value":100}]`, nil},
		{track, `{` + ofOrg + `,"value":130,"overage_behavior":"overflow"}`, 200, `"value":130}]`, nil},
		{track, `{` + ofOrg + `,"value":130,"overage_behaviour":"overflow"}`, 200, `"value":100}]`, nil},
		{track, `{` + ofOrg + `,"value":130,"overage_behavior":"reject"}`, 400, "insufficient_balance", nil},
		{track, `{` + ofOrg + `,"value":100,"overage_behavior":"reject"}`, 200, `"value":100}]`, nil},
		{track, `{` + org + `,"event_name":"message","overage_behavior":"reject"}`, 400, "invalid_inputs", nil},
		{track, `{` + ofOrg + `,"value":-130}`, 200, `"deductions":[]`, nil},
		{track, `{` + ofOrg + `,"event_name":"message"}`, 400, "invalid_inputs", nil},
		{track, `{` + org + `}`, 400, "invalid_inputs", nil},
		{track, `{` + ofOrg + `,"timestamp":1795521600001}`, 400, "invalid_inputs", nil},
		{track, `{"customer_id":"nobody","feature_id":"credits"}`, 404, "customer_not_found", nil},
		{track, `{` + org + `,"feature_id":"seats"}`, 404, "feature_not_found", nil},
		{track, `{` + org + `,"event_name":"other"}`, 404, "invalid_request", nil},
		{track, `{` + ofOrg + `,"entity_id":"e"}`, 404, "entity_not_found", nil},
		{track, `{` + ofOrg + locked + `}`, 409, "lock_already_exists", [][2]string{{track, `{` + ofOrg + locked + `}`}}},
		{track, `{` + ofOrg + `,"idempotency_key":"k"}`, 409, "duplicate_idempotency_key", [][2]string{{track, `{` + ofOrg + `,"idempotency_key":"k"}`}}},
		{track, `{` + ofOrg + `,"value":12}`, 200, `"balance_id":"day","value":10},{"feature_id":"credits","balance_id":"bal_000001","value":2}]`, [][2]string{
			{create, `{` + ofOrg + `,"balance_id":"day","included_grant":10,"reset":{"interval":"day"}}`},
		}},

		{check, `{` + ofOrg + `}`, 200, `"allowed":true`, nil},
		{"/v1/entitled", `{` + ofOrg + `,"required_balance":101}`, 200, `"allowed":false`, nil},
		{"/v1/balances.check", `{"customer_id":"nobody","feature_id":"credits"}`, 404, "customer_not_found", nil},
		{check, `{` + org + `,"feature_id":"seats"}`, 404, "feature_not_found", nil},

		{finalize, `{"lock_id":"l","action":"confirm"}`, 200, "true", [][2]string{{track, `{` + ofOrg + locked + `}`}}},
		{finalize, `{"lock_id":"l","action":"release"}`, 200, "true", [][2]string{{check, `{` + ofOrg + locked + `}`}}},
		{finalize, `{"lock_id":"l","action":"release","override_value":3}`, 400, "invalid_inputs", nil},
		{finalize, `{"lock_id":"l","action":"keep"}`, 400, "invalid_inputs", nil},
		{finalize, `{"lock_id":"l","action":"confirm"}`, 404, "lock_not_found", nil},

		{"/v1/usage", `{` + ofOrg + `,"value":40}`, 200, "true", nil},
		{"/v1/usage", `{` + ofOrg + `}`, 400, "invalid_inputs", nil},
		{update, `{` + ofOrg + `,"add_to_balance":5,"balance_id":"bal_000001"}`, 200, "true", nil},
		{"/v1/balances.update", `{` + ofOrg + `,"remaining":5,"usage":5}`, 400, "invalid_inputs", nil},
		{update, `{` + ofOrg + `,"usage":5,"balance_id":"other"}`, 400, "invalid_inputs", nil},
		{"/v1/balances/create", `{` + ofOrg + `,"included_grant":5,"expires_at":1795608000000}`, 200, "true", nil},
		{create, `{` + ofOrg + `,"balance_id":"bal_000001"}`, 400, "invalid_inputs", nil},
		{create, `{` + ofOrg + `,"reset":{"interval":"eon"}}`, 400, "invalid_inputs", nil},
		{"/v1/balances.recalculate", `{` + ofOrg + `}`, 200, "true", nil},
		{"/v1/balances/recalculate", `{"customer_id":"nobody","feature_id":"credits"}`, 404, "customer_not_found", nil},

		{"/v1/customers", `{"id":"org"}`, 200, `"subscriptions":[{"plan_id":"default","status":"active"`, nil},
		{"/v1/customers.get_or_create", `{` + org + `}`, 200, `"id":"org"`, nil},
		{"/v1/customers.get", `{` + org + `}`, 200, `"remaining":0,"usage":130`, [][2]string{{track, `{` + ofOrg + `,"value":130,"overage_behavior":"overflow"}`}}},
		{"/v1/customers.get", `{"customer_id":"nobody"}`, 404, "customer_not_found", nil},
		{"/v1/events.list", `{` + org + `,"limit":0}`, 400, "invalid_inputs", nil},
		{"/v1/events.aggregate", `{` + org + `}`, 200, `"count":0`, nil},
		{"/v1/billing.attach", `{` + org + `,"plan_id":"other","options":[]}`, 404, "product_not_found", nil},
		{"/v1/checkout", `{` + org + `}`, 200, `"url":"https://`, nil},
		{"/v1/nothing", `{}`, 404, "not_found", nil},
	} {
		b := start(t, autumn.Options{DefaultGrant: 100, EventName: "message"})
		b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
		for _, step := range row.before {
			b.must(t, "POST", step[0], step[1])
		}
		if a := b.send(t, "POST", row.path, row.body, nil); a.status != row.status || !strings.Contains(a.body, row.part) {
			t.Errorf("%s %s = %d %s, want %d with %s", row.path, row.body, a.status, a.body, row.status, row.part)
		}
	}
}

// Keys of the two environments share nothing: not the customers, nor what is
// claimed.
func TestTheKeyDecidesTheEnvironment(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 100, LiveSecretKey: "am_sk_live_right"})
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
	live := map[string]string{"authorization": "Bearer am_sk_live_right", "idempotency-key": "k"}
	if a := b.send(t, "POST", "/v1/track", `{`+ofOrg+`}`, live); a.code(t) != "customer_not_found" || !strings.Contains(a.body, `"env":"live"`) {
		t.Errorf("live before it has the customer: %d %s", a.status, a.body)
	}
	b.send(t, "POST", "/v1/customers", `{"id":"org"}`, map[string]string{"authorization": "Bearer am_sk_live_right"})
	for _, header := range []map[string]string{live, key("k")} {
		if a := b.send(t, "POST", "/v1/track", `{`+ofOrg+`,"value":7}`, header); a.status != 200 {
			t.Errorf("track = %d %s", a.status, a.body)
		}
	}
	b.applied(t, "7", 1)
	if got := b.Live().Applied()["org"]; got.Calls != 1 {
		t.Errorf("live: %+v, want one deduction", got)
	}
}

func TestALockIsConfirmedWithAnotherValue(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for _, final := range []string{"3", "9"} {
		b.must(t, "POST", "/v1/track", `{`+ofOrg+locked+`,"value":5}`)
		b.must(t, "POST", "/v1/balances.finalize", `{"lock_id":"l","action":"confirm","override_value":`+final+`}`)
	}
	b.applied(t, "12", 2)
	if got := b.balance(t); got.Usage != "12" {
		t.Errorf("balance = %+v, want 12 used", got)
	}
}

func TestRecalculatingForgetsWhatHasNoEvent(t *testing.T) {
	t.Parallel()
	b := withFault(t, autumn.Fault{Path: "/v1/track", Fault: autumn.FaultEventLost, Nth: 2})
	for range 2 {
		b.must(t, "POST", "/v1/track", `{`+ofOrg+`,"value":5}`)
	}
	if got := b.balance(t); got.Usage != "10" {
		t.Errorf("balance = %+v, want 10 used", got)
	}
	b.must(t, "POST", "/v1/balances.recalculate", `{`+ofOrg+`}`)
	if got := b.balance(t); got.Usage != "5" {
		t.Errorf("balance = %+v, want 5 used", got)
	}
}

// What only one may do at a time is refused to others while it is being done.
func TestSomeWorkIsExclusive(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		path, body string
		status     int
		code       string
	}{
		{"/v1/attach", `{` + org + `,"plan_id":"top_up","options":[{"feature_id":"credits","quantity":1}]}`, 429, "rate_limit_exceeded"},
		{"/v1/balances.finalize", `{"lock_id":"l","action":"confirm"}`, 409, "invalid_request"},
	} {
		b := withFault(t, autumn.Fault{Path: row.path, Fault: autumn.FaultSlowApply, DelayMS: 100})
		var answers [2]answer
		for answers[0].status != row.status && answers[1].status != row.status {
			b.advance(time.Minute) // so many are let through in one
			var g sync.WaitGroup
			for i := range answers {
				g.Go(func() { answers[i] = b.send(t, "POST", row.path, row.body, nil) })
			}
			g.Wait()
		}
		for _, a := range answers {
			if a.status == row.status && a.code(t) != row.code {
				t.Errorf("%s = %s, want %s", row.path, a.body, row.code)
			}
		}
	}
}
