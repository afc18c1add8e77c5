package autumn_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// credits is what a customer's balance shows.
type credits struct {
	Granted, Remaining, Usage json.Number
	NextResetAt               *int64 `json:"next_reset_at"`
	Breakdown                 []struct{ Remaining, Usage json.Number }
}

func (b *bundle) balance(t *testing.T) credits {
	t.Helper()
	var c struct{ Balances map[string]credits }
	if err := json.Unmarshal([]byte(b.must(t, "GET", "/v1/customers/org", "")), &c); err != nil {
		t.Fatal(err)
	}
	return c.Balances["credits"]
}

func TestRowsAreUsedShortestCycleFirstAndFlooredEach(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 10})
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
	b.must(t, "POST", "/v1/balances/create", `{"customer_id":"org","feature_id":"credits","included_grant":5,"reset":{"interval":"day"}}`)
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":8}`)
	got := b.balance(t)
	if got.Remaining != "7" || len(got.Breakdown) != 2 || got.Breakdown[0].Remaining != "0" || got.Breakdown[1].Remaining != "7" || got.NextResetAt == nil {
		t.Errorf("balance = %+v, want the day's 5 used up and 7 of the lasting 10 left", got)
	}
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":9,"overage_behavior":"overflow"}`)
	if got := b.balance(t); got.Remaining != "0" || got.Usage != "17" {
		t.Errorf("balance = %+v, want 0 shown as left and 17 used of 15", got)
	}
	b.advance(25 * time.Hour)
	if got := b.balance(t); got.Remaining != "5" || got.Usage != "12" {
		t.Errorf("balance after a day = %+v, want the day's 5 anew beside a row of −2", got)
	}
}

func TestASpendLimitClampsAnOverflow(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 10})
	b.must(t, "POST", "/__customer", `{"customer_id":"org","spend_limit":2}`)
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":20,"overage_behavior":"overflow"}`)
	b.applied(t, "12", 1)
}

func TestAnAmountIsShownWithFourteenDigits(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 10_000_000})
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":0.0000001}`)
	if got := b.balance(t).Remaining; got != "9999999.9999999" {
		t.Errorf("remaining = %s, want 9999999.9999999", got)
	}
}

func TestAttachSucceedsOnlyWhenTheCardIsCharged(t *testing.T) {
	t.Parallel()
	const buy = `{"customer_id":"org","plan_id":"top_up","redirect_mode":"if_required","options":[{"feature_id":"credits","quantity":500}]}`
	for _, row := range []struct {
		name, card, body string
		status           int
		says, granted    string
	}{
		{"a good card", autumn.CardGood, buy, 200, `"status":"paid"`, "510"},
		{"a declined card", autumn.CardDeclined, buy, 400, `"code":"payment_failed"`, "10"},
		{"a card whose owner must act", autumn.CardAction, buy, 200, `"3ds_required"`, "10"},
		{"no card", "", buy, 200, `"payment_url":"https`, "10"},
		{"a page is always given unless told otherwise", autumn.CardGood, strings.Replace(buy, "if_required", "always", 1), 200, `"payment_url":"https`, "10"},
		{"another plan", autumn.CardGood, strings.Replace(buy, "top_up", "gold", 1), 404, "product_not_found", "10"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, autumn.Options{DefaultGrant: 10, Card: row.card})
			b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
			a := b.send(t, "POST", "/v1/billing.attach", row.body, nil)
			if a.status != row.status || !strings.Contains(a.body, row.says) {
				t.Errorf("attach = %d %s, want %d with %s", a.status, a.body, row.status, row.says)
			}
			if got := b.balance(t).Granted; string(got) != row.granted {
				t.Errorf("granted = %s, want %s", got, row.granted)
			}
		})
	}
}

func TestBillingWritesAreLimited(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	for range 30 {
		b.must(t, "POST", "/v1/checkout", `{"customer_id":"org"}`)
	}
	if a := b.send(t, "POST", "/v1/checkout", `{"customer_id":"org"}`, nil); a.status != 429 {
		t.Errorf("the 31st = %d, want 429", a.status)
	}
	b.must(t, "POST", "/__clock", `{"advance_ms":60000}`)
	b.must(t, "POST", "/v1/checkout", `{"customer_id":"org"}`)
}

func TestBalancesAreSetAndLocksReleased(t *testing.T) {
	t.Parallel()
	b := withCustomer(t)
	before := b.balance(t)
	b.must(t, "POST", "/v1/track", trackOne)
	b.must(t, "POST", "/v1/balances.finalize", `{"lock_id":"l","action":"release"}`)
	if diff := cmp.Diff(before, b.balance(t)); diff != "" {
		t.Errorf("after a release (-want +got):\n%s", diff)
	}
	b.must(t, "POST", "/v1/balances/update", `{"customer_id":"org","feature_id":"credits","remaining":50}`)
	b.must(t, "POST", "/v1/usage", `{"customer_id":"org","feature_id":"credits","value":20}`)
	if got := b.balance(t); got.Usage != "20" || got.Remaining != "30" {
		t.Errorf("balance = %+v, want 20 used of 50", got)
	}
}

func TestALossOfMemoryTakesDeductionsAndReceiptsBack(t *testing.T) {
	t.Parallel()
	b := withFault(t, autumn.Fault{Path: "/v1/track", Fault: autumn.FaultMemoryLoss, Nth: 2, DelayMS: 5000})
	b.must(t, "POST", "/v1/track", trackOne)
	b.advance(time.Second)
	b.must(t, "POST", "/v1/track", trackOne) // the receipt is gone: no 409
	b.applied(t, "4", 1)
}

func TestAFalseLockAppliesNothing(t *testing.T) {
	t.Parallel()
	b := withFault(t, autumn.Fault{Path: "/v1/track", Fault: autumn.FaultFalseLock, Nth: 1})
	if a := b.send(t, "POST", "/v1/track", trackOne, nil); a.status != 409 || a.code(t) != "lock_already_exists" {
		t.Errorf("track = %d %s, want 409 lock_already_exists", a.status, a.body)
	}
	if got := b.Applied(); len(got) != 0 {
		t.Errorf("applied = %v, want nothing", got)
	}
}

func TestWebhooksAreSignedAndDeliveredAsAsked(t *testing.T) {
	t.Parallel()
	var got []string
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("svix-id")+" "+r.Header.Get("svix-timestamp")+" "+r.Header.Get("svix-signature")[:3])
		w.WriteHeader(204)
	}))
	t.Cleanup(to.Close)
	b := withCustomer(t)
	if err := b.SendWebhooks(to.URL, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"); err != nil {
		t.Fatal(err)
	}
	b.Grant("org", autumn.Credits(5))
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":1000}`)
	twice := func(list []autumn.Webhook) []autumn.Webhook { return []autumn.Webhook{list[1], list[0], list[0]} }
	statuses := b.DeliverWebhooks(context.WithoutCancel(t.Context()), twice)
	if len(statuses) != 3 || len(b.WaitingWebhooks()) != 0 {
		t.Fatalf("DeliverWebhooks = %v", statuses)
	}
	want := []string{"msg_000002 1795521600 v1,", "msg_000001 1795521600 v1,", "msg_000001 1795521600 v1,"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
}

// A webhook that fails comes again when Svix would send it, under its id and a new
// signature, until it is taken or Svix gives up.
func TestAWebhookThatFailsComesAgain(t *testing.T) {
	t.Parallel()
	var got []string
	status := 503
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("svix-id")+" "+r.Header.Get("svix-timestamp"))
		w.WriteHeader(status)
	}))
	t.Cleanup(to.Close)
	b := withCustomer(t)
	if err := b.SendWebhooks(to.URL, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"); err != nil {
		t.Fatal(err)
	}
	b.Grant("org", autumn.Credits(5))
	deliver := func(after time.Duration) int {
		t.Helper()
		b.advance(after)
		return len(b.DeliverWebhooks(t.Context(), nil))
	}
	if n := deliver(0) + deliver(4*time.Second); n != 1 {
		t.Errorf("delivered %d times in four seconds, want once", n)
	}
	status = 204
	if n := deliver(time.Second) + deliver(24*time.Hour); n != 1 {
		t.Errorf("delivered %d times after five seconds, want once more", n)
	}
	if diff := cmp.Diff([]string{"msg_000001 1795521600", "msg_000001 1795521605"}, got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	status = 500
	b.Grant("org", autumn.Credits(5))
	n := 0
	for range 100 {
		n += deliver(time.Hour)
	}
	if n != 8 || len(b.WaitingWebhooks()) != 0 {
		t.Errorf("tried %d times, %d still wait, want 8 and none", n, len(b.WaitingWebhooks()))
	}
}

func TestAPlanChangeIsANewCycleWithAnotherGrant(t *testing.T) {
	t.Parallel()
	b := start(t, autumn.Options{DefaultGrant: 10})
	b.must(t, "POST", "/v1/customers", `{"id":"org"}`)
	b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":3}`)
	if err := b.SetFaults(autumn.Fault{Fault: autumn.FaultPlanChange, Path: "/v1/track"}); err != nil {
		t.Fatal(err)
	}
	type seen struct {
		Subscriptions []struct {
			PlanID string `json:"plan_id"`
		}
		Balances map[string]struct {
			Granted     json.Number
			Usage       json.Number
			NextResetAt *int64 `json:"next_reset_at"`
		}
	}
	for _, want := range []string{"bigger 20 4", "default 10 4"} {
		b.must(t, "POST", "/v1/track", `{"customer_id":"org","feature_id":"credits","value":4}`)
		var c seen
		if err := json.Unmarshal([]byte(b.must(t, "GET", "/v1/customers/org", "")), &c); err != nil {
			t.Fatal(err)
		}
		bal := c.Balances["credits"]
		if got := fmt.Sprintf("%s %s %s", c.Subscriptions[0].PlanID, bal.Granted, bal.Usage); got != want || bal.NextResetAt == nil {
			t.Errorf("the customer is on %s, want %s and a cycle", got, want)
		}
	}
	if got := b.Applied()["org"]; got.Calls != 3 || got.Credits.String() != "11" {
		t.Errorf("applied %+v, want 11 in 3", got)
	}
}
