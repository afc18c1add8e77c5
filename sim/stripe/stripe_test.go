package stripe_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/stripe"
)

type bundle struct {
	*stripe.Server
	now time.Time
}

func start(opts stripe.Options) *bundle {
	b := &bundle{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	opts.Now = func() time.Time { return b.now }
	b.Server = stripe.New(opts)
	return b
}

func (b *bundle) send(t *testing.T, method, path, form string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form))
	r.Header.Set("Authorization", "Bearer sk_test_any")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const customer = "name=Acme&metadata[team_id]=acme"

func event(change ...string) string {
	v := url.Values{"event_name": {"llm_micro_credits"}, "identifier": {"i1"}, "payload[stripe_customer_id]": {"cus_1"}, "payload[value]": {"25"}}
	for i := 0; i < len(change); i += 2 {
		v.Set(change[i], change[i+1])
	}
	return v.Encode()
}

func TestEventsAreTakenByTheDocumentedRules(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string {
		return fmt.Sprint(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).Add(d).Unix())
	}
	for _, row := range []struct {
		name, form string
		status     int
		says       string
		counted    int64
	}{
		{"a right one", event(), 200, `"value":"25"`, 25},
		{"35 days old", event("timestamp", at(-35*24*time.Hour)), 200, "", 25},
		{"older", event("timestamp", at(-35*24*time.Hour-time.Second)), 400, "35 calendar days", 0},
		{"5 minutes ahead", event("timestamp", at(5*time.Minute)), 200, "", 25},
		{"further ahead", event("timestamp", at(5*time.Minute+time.Second)), 400, "35 calendar days", 0},
		{"a value that is not whole", event("payload[value]", "2.5"), 400, "whole number", 0},
		{"no value", event("payload[value]", ""), 400, "Missing", 0},
		{"another meter", event("event_name", "x"), 400, "No active meter", 0},
		{"an identifier that is too long", event("identifier", strings.Repeat("x", 101)), 400, "100 characters", 0},
		{"a customer that does not exist is taken and not counted", event("payload[stripe_customer_id]", "cus_9"), 200, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := start(stripe.Options{})
			b.send(t, "POST", "/v1/customers", customer)
			status, body := b.send(t, "POST", "/v1/billing/meter_events", row.form)
			if status != row.status || !strings.Contains(body, row.says) || b.Applied()["cus_1"].Value != row.counted {
				t.Errorf("%d %s, counted %+v, want %d with %q and %d", status, body, b.Applied(), row.status, row.says, row.counted)
			}
		})
	}
}

func TestAnIdentifierIsUniqueForADay(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{})
	b.send(t, "POST", "/v1/customers", customer)
	b.send(t, "POST", "/v1/billing/meter_events", event())
	b.now = b.now.Add(24*time.Hour - time.Second)
	if status, body := b.send(t, "POST", "/v1/billing/meter_events", event()); status != 400 || !strings.Contains(body, "An event already exists with identifier i1.") {
		t.Errorf("within a day: %d %s, want 400", status, body)
	}
	b.now = b.now.Add(time.Second)
	if status, _ := b.send(t, "POST", "/v1/billing/meter_events", event()); status != 200 || b.Applied()["cus_1"].Events != 2 {
		t.Errorf("after a day: %d, counted %+v, want it counted again", status, b.Applied())
	}
}

func TestEventsAreLimitedASecond(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{PerSecond: 2})
	for i, want := range []int{200, 200, 429} {
		if status, body := b.send(t, "POST", "/v1/billing/meter_events", event("identifier", fmt.Sprint(i))); status != want {
			t.Errorf("event %d = %d %s, want %d", i, status, body, want)
		}
	}
}

func TestACustomersEventsAreTakenOneByOne(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{PerSecond: 1_000_000})
	if err := b.SetFaults(stripe.Fault{Fault: stripe.FaultSlowApply, Nth: 1, DelayMS: 500}); err != nil {
		t.Fatal(err)
	}
	statuses := make(chan int)
	for i := range 2 {
		go func() {
			status, _ := b.send(t, "POST", "/v1/billing/meter_events", event("identifier", fmt.Sprint(i)))
			statuses <- status
		}()
	}
	if first, second := <-statuses, <-statuses; first != 429 || second != 200 {
		t.Errorf("the quicker = %d, the slow one = %d, want 429 and 200", first, second)
	}
}

func TestAnIdempotencyKeyRepeatsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{})
	if err := b.SetFaults(stripe.Fault{Fault: stripe.FaultError500AfterApply, Nth: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, _ := b.send(t, "POST", "/v1/customers", customer, "Idempotency-Key", "k"); status != 500 {
			t.Errorf("status = %d, want the stored 500", status)
		}
	}
	if status, body := b.send(t, "POST", "/v1/customers", "name=other", "Idempotency-Key", "k"); status != 400 || !strings.Contains(body, "idempotency_error") {
		t.Errorf("other parameters: %d %s, want 400 idempotency_error", status, body)
	}
	if b.CustomerOf("acme") != "cus_1" {
		t.Errorf("customer = %q, want one", b.CustomerOf("acme"))
	}
}

func TestCustomersAreFoundAfterALag(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{SearchLag: time.Minute})
	b.send(t, "POST", "/v1/customers", `metadata[team_id]=it's`)
	path := "/v1/customers/search?query=" + url.QueryEscape(`metadata['team_id']:'it\'s'`)
	if _, body := b.send(t, "GET", path, ""); strings.Contains(body, "cus_1") {
		t.Errorf("found at once: %s", body)
	}
	b.now = b.now.Add(time.Minute)
	if _, body := b.send(t, "GET", path, ""); !strings.Contains(body, "cus_1") {
		t.Errorf("not found after a minute: %s", body)
	}
}

func TestFaultsHaveTheirShape(t *testing.T) {
	t.Parallel()
	b := start(stripe.Options{})
	b.send(t, "POST", "/v1/customers", customer)
	for fault, want := range map[string]int{stripe.FaultRateLimited: 429, stripe.FaultHTML502: 502, stripe.FaultError500AfterApply: 500} {
		if err := b.SetFaults(stripe.Fault{Path: "/v1/billing/meter_events", Fault: fault, Times: 1}); err != nil {
			t.Fatal(err)
		}
		if status, _ := b.send(t, "POST", "/v1/billing/meter_events", event("identifier", fault)); status != want {
			t.Errorf("%s = %d, want %d", fault, status, want)
		}
	}
	if got := b.Applied()["cus_1"].Events; got != 1 {
		t.Errorf("%d events counted, want that of the 500 alone", got)
	}
	if b.SetFaults(stripe.Fault{Fault: "no_such"}) == nil {
		t.Error("an unknown fault was taken")
	}
	if status, _ := b.send(t, http.MethodGet, "/v1/billing/meters", "", "Authorization", "Bearer pk_x"); status != 401 {
		t.Errorf("another key = %d, want 401", status)
	}
}
