package autumn_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const batchTrack = "/v1/balances.batch_track"

func item(value int, more string) string {
	return fmt.Sprintf(`{"customer_id":"org","feature_id":"credits","value":%d%s}`, value, more)
}

func list(items ...string) string { return "[" + strings.Join(items, ",") + "]" }

func TestABatchIsCheckedAsAWholeAndDeductedLater(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for name, body := range map[string]string{
		"none": "[]", "no list": item(1, ""), "one is wrong": list(item(1, ""), `{"customer_id":"org"}`),
		"too many": list(strings.Split(strings.Repeat(item(1, "")+" ", 1000)+item(1, ""), " ")...),
	} {
		b.advance(time.Second) // ten a second are let through
		if a := b.send(t, "POST", batchTrack, body, nil); a.status != 400 {
			t.Errorf("%s: %d %s, want 400", name, a.status, a.body)
		}
	}
	keyed := `,"idempotency_key":"k"`
	if a := b.send(t, "POST", batchTrack, list(item(1, ""), item(2, keyed), item(2, keyed)), nil); a.status != 200 || a.body != `{"success":true}` {
		t.Errorf("a batch: %d %s", a.status, a.body)
	}
	b.applied(t, "0", 0)
	b.advance(time.Second)
	b.send(t, "GET", "/v1/customers/org", "", nil) // the worker works
	b.applied(t, "3", 2)
}

func TestABatchThatIsLostInPartIsASuccess(t *testing.T) {
	t.Parallel()
	b := withFault(t, autumn.Fault{Path: batchTrack, Fault: autumn.FaultPartial})
	if a := b.send(t, "POST", batchTrack, list(item(1, ""), item(2, "")), nil); a.status != 200 {
		t.Errorf("a batch: %d %s", a.status, a.body)
	}
	b.advance(time.Second)
	b.send(t, "GET", "/v1/customers/org", "", nil)
	b.applied(t, "1", 1)
	for range 10 {
		b.send(t, "POST", batchTrack, list(item(1, "")), nil)
	}
	if a := b.send(t, "POST", batchTrack, list(item(1, "")), nil); a.status != 429 {
		t.Errorf("the eleventh in a second: %d, want 429", a.status)
	}
}

func TestACheckHoldsUnderALock(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	const check = `{"customer_id":"org","feature_id":"credits","required_balance":4,"lock":{"enabled":true,"lock_id":"l"}}`
	if a := b.send(t, "POST", "/v1/check", check, nil); a.status != 200 {
		t.Errorf("check: %d %s", a.status, a.body)
	}
	if a := b.send(t, "POST", "/v1/check", check, nil); a.status != 409 || a.code(t) != "lock_already_exists" {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	b.applied(t, "4", 1)
	b.send(t, "POST", "/v1/balances.finalize", `{"lock_id":"l","action":"release"}`, nil)
	b.applied(t, "0", 0)
}

func TestACheckFailsOpen(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fault   string
		asked   int
		applied string
	}{{autumn.FaultSlowApply, 4, "4"}, {autumn.FaultSlowApply, 4000, "0"}, {autumn.FaultAccepted202Lost, 4, "0"}} {
		b := withFault(t, autumn.Fault{Path: "/v1/check", Fault: row.fault, DelayMS: 3500})
		a := b.send(t, "POST", "/v1/check", fmt.Sprintf(`{"customer_id":"org","feature_id":"credits","required_balance":%d,"send_event":true}`, row.asked), nil)
		if a.status != 202 || !strings.Contains(a.body, `"allowed":true`) || !strings.Contains(a.body, `"balance":null`) {
			t.Errorf("%+v: %d %s, want it allowed", row, a.status, a.body)
		}
		b.advance(4 * time.Second)
		b.send(t, "GET", "/v1/customers/org", "", nil)
		if got := b.Applied()["org"].Credits.String(); got != row.applied {
			t.Errorf("%+v: applied %s", row, got)
		}
	}
}

func TestAnEntitysCreditsGoFirst(t *testing.T) {
	t.Parallel()
	b := withCustomer(t) // 100 credits
	say := func(method, path, body string, want int, part string) {
		t.Helper()
		if a := b.send(t, method, path, body, nil); a.status != want || !strings.Contains(a.body, part) {
			t.Errorf("%s %s %s = %d %s, want %d with %s", method, path, body, a.status, a.body, want, part)
		}
	}
	const path, e = "/v1/customers/org/entities", `,"entity_id":"e"`
	say("POST", path, `{"id":"e","feature_id":"users"}`, 200, `"id":"e"`)
	say("POST", "/v1/entities.create", `{"customer_id":"org","entity_id":"e","feature_id":"users"}`, 200, `"customer_id":"org"`)
	say("POST", "/v1/balances/create", `{"customer_id":"org","feature_id":"credits","entity_id":"e","included_grant":5}`, 200, "true")
	say("POST", "/v1/track", item(7, e), 200, `"value":7`)
	say("GET", path+"/e", "", 200, `"usage":5`)
	say("GET", "/v1/customers/org", "", 200, `"usage":2`)
	say("POST", "/v1/check", `{"customer_id":"org","feature_id":"credits","required_balance":99,"entity_id":"e"}`, 200, `"allowed":false`)
	say("POST", "/v1/track", item(1, `,"entity_id":"f"`), 404, "entity_not_found")
	say("DELETE", path+"/e", "", 200, "true")
	say("POST", "/v1/entities.get", `{"customer_id":"org","entity_id":"e"}`, 404, "entity_not_found")
	say("POST", path, `{"feature_id":"users"}`, 400, "invalid_inputs")
	say("POST", "/v1/customers/nobody/entities", `{"id":"e","feature_id":"users"}`, 404, "customer_not_found")
}
