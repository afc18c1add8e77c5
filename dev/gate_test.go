package dev

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// TestAnExhaustedTeamIsStopped spends a team's trial. Its new requests get a final
// error, its running stream goes on or is cut as EXHAUSTED_STREAMS says, and when
// Autumn turns out to have credits of it, it works again without anybody's help.
func TestAnExhaustedTeamIsStopped(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"finish", "cut"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSuite(t)
			s.env["BILLING_TRIAL_CREDITS"], s.env["EXHAUSTED_STREAMS"], s.env["BILLING_RECONCILE_SHUT_INTERVAL"] = "1000", mode, "1s"
			keysvc, proxysvc, billingsvc := s.start("keysvc"), s.start("proxysvc"), s.start("billingsvc")
			resp, err := keysv1.NewKeyServiceClient(keysvc.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "session", TeamId: "acme"})
			if err != nil {
				t.Fatal(err)
			}
			key := resp.GetSecret()
			stream := post(t, proxysvc.http, key, `{"model":"claude-haiku-4-5","max_tokens":20,"stream":true,"messages":[{"role":"user","content":"[[sim:stall_pings=after:1]]"}]}`)
			if stream.StatusCode != http.StatusOK {
				t.Fatalf("status %d", stream.StatusCode)
			}
			billing := billingv1.NewBillingServiceClient(billingsvc.dial(t))
			spend := &billingv1.RecordEventRequest{IdempotencyKey: "compute:1", TeamId: "acme", EventType: "compute", PriceNanoUsd: 20_000_000_000}
			if _, err := billing.RecordEvent(t.Context(), spend); err != nil {
				t.Fatal(err)
			}
			const hello = `{"model":"claude-haiku-4-5","max_tokens":20,"messages":[{"role":"user","content":"Hi"}]}`
			poll(t, func() bool { return refusedForGood(t, post(t, proxysvc.http, key, hello)) })
			if mode == "cut" {
				defer time.AfterFunc(time.Minute, func() { stream.Body.Close() }).Stop() // a stream that is not cut fails, and does not hang
				text, err := io.ReadAll(stream.Body)
				if err != nil || !strings.Contains(string(text), "event: error") || !strings.Contains(string(text), "billing_error") {
					t.Errorf("the stream ended with %v: %s", err, tail(string(text), 300))
				}
			} else {
				r := bufio.NewReader(stream.Body)
				for range 2 { // what was read before the team was exhausted is not all
					r.Discard(r.Buffered()) //nolint:errcheck // it is there
					awaitLine(t, r, "event: ping")
				}
			}
			s.start("outboxsvc") // Autumn's plan grants 10,000 credits
			poll(t, func() bool {
				resp := post(t, proxysvc.http, key, hello)
				defer resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			})
		})
	}
}

// refusedForGood says whether a request was refused for want of credits, so that a
// client does not try again.
func refusedForGood(t *testing.T, resp *http.Response) bool {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode == http.StatusPaymentRequired && resp.Header.Get("X-Should-Retry") == "false" &&
		strings.Contains(string(text), "credits are used up")
}

// TestChargesAreSteeredFromTheCommandLine resolves a charge of a feature that
// Autumn does not have.
func TestChargesAreSteeredFromTheCommandLine(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["AUTUMN_FEATURE_ID"] = "tokens"
	s.start("keysvc")
	s.start("proxysvc")
	billingsvc := s.start("billingsvc")
	s.start("outboxsvc")
	billing := billingv1.NewBillingServiceClient(billingsvc.dial(t))
	spend := &billingv1.RecordEventRequest{IdempotencyKey: "compute:1", TeamId: "acme", EventType: "compute", PriceNanoUsd: 20_000_000_000}
	if _, err := billing.RecordEvent(t.Context(), spend); err != nil {
		t.Fatal(err)
	}
	command := func(args string) (string, int) {
		t.Helper()
		out, status := s.llmproxy(masterKey, append([]string{"outbox"}, strings.Fields(args)...)...)
		return strings.Join(strings.Fields(out), ""), status
	}
	var charges *billingv1.ListChargesResponse
	poll(t, func() bool {
		var err error
		charges, err = billing.ListCharges(t.Context(), &billingv1.ListChargesRequest{State: billingv1.ChargeState_CHARGE_STATE_DEAD})
		return err == nil && len(charges.GetCharges()) == 1
	})
	id := charges.GetCharges()[0].GetChargeId()
	for _, step := range []struct{ want, args string }{
		{id, "dead --team acme"},
		{"{}", "doubts"},
		{id, "requeue --dry-run --team acme --contains feature_not_found --reason looked"},
		{`"state":"short"`, "resolve --dry-run --credits 1500 --reason looked " + id + " applied"},
		{`"state":"posted"`, "resolve --reason looked " + id + " applied"},
		{"{}", "dead"},
		{"{}", "pause --team acme --reason looking"},
		{`"resumed":true`, "resume --team acme"},
		{`"team_id":"acme"`, "reconcile acme"},
		{`"refused":"1"`, "stats"},
		{"{}", "topups acme"},
	} {
		if got, status := command(step.args); status != 0 || !strings.Contains(got, step.want) {
			t.Errorf("llmproxy outbox %s = %s, %d, want %s in it", step.args, got, status, step.want)
		}
	}
	for args, want := range map[string]string{
		"resolve-topup --reason looked t1 applied": "top-upt1notfound",
		"resolve-topup --reason looked t1":         "resolve-topupTOPUPapplied,ornot-applied",
	} {
		if got, status := command(args); status == 0 || !strings.Contains(got, want) {
			t.Errorf("llmproxy outbox %s = %s, %d, want a failure with %s in it", args, got, status, want)
		}
	}
}
