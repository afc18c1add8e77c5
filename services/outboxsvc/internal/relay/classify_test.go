package relay

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every row of the table "what each answer proves".
func TestClassify(t *testing.T) {
	t.Parallel()
	const amount = 31_500_000 // 3.15 credits
	json := func(status int, code, message string) Answer {
		return Answer{Status: status, Code: code, Message: message, Feature: "credits"}
	}
	ok := func(deducted int64) Answer {
		return Answer{Status: 200, Says: true, Deducted: deducted, HasBalance: true, Balance: "96.85", Feature: "credits"}
	}
	const noPlan = "customer has no balance of feature credits: attach a plan"
	tests := []struct {
		name     string
		attempts int
		answer   Answer
		want     Verdict
	}{
		{
			"200 with all of it deducted", 1, ok(3_150_000),
			Verdict{Outcome: Applied, Proof: "deductions", SinkBalanceCredits: "96.85"},
		},
		{
			"200 with a micro-credit less", 1, ok(3_149_999),
			Verdict{
				Outcome: PartlyApplied, Proof: "deductions", SinkBalanceCredits: "96.85", AppliedNanoUSD: amount - 10,
				Error: "deducted 3.149999 of 3.15 credits: a spend limit, or overage is not allowed",
			},
		},
		{
			"200 with nothing deducted from a balance that is there", 1, ok(0),
			Verdict{
				Outcome: PartlyApplied, Proof: "deductions", SinkBalanceCredits: "96.85",
				Error: "deducted 0 of 3.15 credits: a spend limit, or overage is not allowed",
			},
		},
		{
			"200 with more deducted", 1, ok(3_150_001),
			Verdict{Outcome: Unknown, Error: "deducted 3.150001 credits instead of 3.15: verify by hand"},
		},
		{"200 with a refund", 1, ok(-1), Verdict{Outcome: Unknown, Error: "deducted -0.000001 credits instead of 3.15: verify by hand"}},
		{
			"200 with no deductions and no balance", 1,
			Answer{Status: 200, Says: true, NullBalance: true, Feature: "credits"},
			Verdict{Outcome: NotApplied, Error: noPlan},
		},
		{"200 with balance null alone", 1, Answer{Status: 200, NullBalance: true, Feature: "credits"}, Verdict{Outcome: NotApplied, Error: noPlan}},
		{
			"200 with no deductions and nothing on the balance", 1,
			Answer{Status: 200, Says: true, Feature: "credits"},
			Verdict{Outcome: NotApplied, Error: noPlan},
		},
		{
			"200 in an older shape", 1, json(200, "event_received", ""),
			Verdict{Outcome: Unknown, Error: "200 that does not say what was deducted"},
		},
		{
			"200 with a balance and no deductions", 1,
			Answer{Status: 200, HasBalance: true, Balance: "5"},
			Verdict{Outcome: Unknown, Error: "200 that does not say what was deducted"},
		},
		{"202 queued", 1, Answer{Status: 202, Says: true, NullBalance: true}, Verdict{Outcome: Unknown, Error: "202: accepted, not yet applied", RetryAfter: 30 * time.Second}},
		{
			"409 lock_already_exists after an earlier attempt", 2, json(409, "lock_already_exists", "Lock exists"),
			Verdict{Outcome: Applied, Proof: "lock_already_exists"},
		},
		{
			"409 lock_already_exists although no attempt can have been applied", 1, json(409, "lock_already_exists", "Lock exists"),
			Verdict{
				Outcome: Unknown, Do: Verify,
				Error: "unproved: 409 lock_already_exists: Lock exists, and no attempt of ours can have been applied: a false answer, or another installation uses our ids",
			},
		},
		{
			"409 duplicate_idempotency_key", 2, json(409, "duplicate_idempotency_key", "Another request"),
			Verdict{Outcome: Unknown, Error: "409 duplicate_idempotency_key: Another request"},
		},
		{"another 409", 2, json(409, "invalid_request", "busy"), Verdict{Outcome: Unknown, Error: "409 invalid_request: busy"}},
		{"a timeout", 1, Answer{Failure: "no answer in time"}, Verdict{Outcome: Unknown, Error: "no answer in time", Ill: true}},
		{"a truncated body", 1, Answer{Failure: "200 with a truncated answer"}, Verdict{Outcome: Unknown, Error: "200 with a truncated answer", Ill: true}},
		{
			"a connection that was never had", 1,
			Answer{Failure: "connection refused", NeverSent: true},
			Verdict{Outcome: NotApplied, Error: "never sent: connection refused", Ill: true},
		},
		{"500", 1, json(500, "internal_error", "oops"), Verdict{Outcome: Unknown, Error: "500 internal_error: oops", Ill: true}},
		{"502 as HTML", 1, Answer{Status: 502, Foreign: true}, Verdict{Outcome: Unknown, Error: "502 and a body that is not the sink's", Ill: true}},
		{"200 as HTML", 1, Answer{Status: 200, Foreign: true}, Verdict{Outcome: Unknown, Error: "200 and a body that is not the sink's", Ill: true}},
		{"404 as HTML", 1, Answer{Status: 404, Foreign: true}, Verdict{Outcome: Unknown, Error: "404 and a body that is not the sink's", Ill: true}},
		{"403 as HTML, from a firewall", 1, Answer{Status: 403, Foreign: true}, Verdict{Outcome: Unknown, Error: "403 and a body that is not the sink's", Ill: true}},
		{"a redirect", 1, Answer{Status: 302, Foreign: true}, Verdict{Outcome: Unknown, Error: "302 and a body that is not the sink's", Ill: true}},
		{"a redirect with JSON", 1, json(307, "", ""), Verdict{Outcome: Unknown, Error: "307", Ill: true}},
		{
			"429", 1,
			Answer{Status: 429, Code: "rate_limit_exceeded", Message: "slow down", RetryAfter: 7 * time.Second},
			Verdict{Outcome: NotApplied, Error: "429 rate_limit_exceeded: slow down", RetryAfter: 7 * time.Second},
		},
		{"429 in plain text", 1, Answer{Status: 429, Foreign: true}, Verdict{Outcome: NotApplied, Error: "429"}},
		{
			"503 service_unavailable", 1,
			Answer{Status: 503, Code: "service_unavailable", Message: "shedding", RetryAfter: time.Second},
			Verdict{Outcome: NotApplied, Error: "503 service_unavailable: shedding", RetryAfter: time.Second},
		},
		{
			"503 because the async track is off", 1, json(503, "internal_error", "Async track is not available right now"),
			Verdict{Outcome: NotApplied, Error: "503 internal_error: Async track is not available right now"},
		},
		{"another 503", 1, json(503, "internal_error", "Redis timeout"), Verdict{Outcome: Unknown, Error: "503 internal_error: Redis timeout", Ill: true}},
		{
			"404 customer_not_found", 1, json(404, "customer_not_found", "Customer acme not found"),
			Verdict{Outcome: NotApplied, Error: "404 customer_not_found: Customer acme not found", Do: CreateCustomer},
		},
		{"404 feature_not_found", 1, json(404, "feature_not_found", "no credits"), Verdict{Outcome: Refused, Error: "404 feature_not_found: no credits"}},
		{
			"401", 1, json(401, "invalid_secret_key", "am_sk_te****"),
			Verdict{Outcome: NotApplied, Error: "401 invalid_secret_key: the sink refuses our credentials", Do: Halt},
		},
		{
			"403", 1, json(403, "insufficient_scopes", ""),
			Verdict{Outcome: NotApplied, Error: "403 insufficient_scopes: the sink refuses our credentials", Do: Halt},
		},
		{"400", 1, json(400, "invalid_inputs", "value: bad"), Verdict{Outcome: Refused, Error: "400 invalid_inputs: value: bad"}},
		{"a 4xx that is not of Autumn's shape", 1, json(400, "", ""), Verdict{Outcome: Unknown, Error: "400", Ill: true}},
		{"a proxy's 408", 1, json(408, "timeout", ""), Verdict{Outcome: Unknown, Error: "408 timeout"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Classify(Charge{AmountNanoUSD: amount, Attempts: tt.attempts, Unsure: tt.attempts > 1}, tt.answer, Collapsing)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Classify (-want +got):\n%s", diff)
			}
		})
	}
}

// What differs when the id is only claimed, apart from the work.
func TestClassifyWithAClaimedKey(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		unsure bool
		answer Answer
		want   Verdict
	}{
		{
			"200 without a balance uses the key up", false,
			Answer{Status: 200, Says: true, NullBalance: true, Feature: "credits"},
			Verdict{Outcome: NotApplied, Error: "customer has no balance of feature credits: attach a plan", KeyUsedUp: true},
		},
		{
			"409 duplicate_idempotency_key after an attempt in doubt proves nothing", true,
			Answer{Status: 409, Code: "duplicate_idempotency_key"},
			Verdict{Outcome: Unknown, Error: "409 duplicate_idempotency_key"},
		},
		{
			"409 duplicate_idempotency_key without one is an alarm", false,
			Answer{Status: 409, Code: "duplicate_idempotency_key"},
			Verdict{
				Outcome: Unknown, Do: Verify,
				Error: "unproved: 409 duplicate_idempotency_key, and no attempt of ours can have been applied: a false answer, or another installation uses our ids",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Classify(Charge{AmountNanoUSD: 10, Unsure: tt.unsure}, tt.answer, Claiming)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Classify (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWaitDoublesUpToFiveMinutes(t *testing.T) {
	t.Parallel()
	whole := jitter(func(d time.Duration) time.Duration { return d })
	for attempts, want := range map[int]time.Duration{
		0: 2 * time.Second, 1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second,
		8: 256 * time.Second, 9: 5 * time.Minute, 1_000_000: 5 * time.Minute,
	} {
		if got := whole.wait(attempts, 0); got != want {
			t.Errorf("wait(%d) = %s at most, want %s", attempts, got, want)
		}
	}
	none := jitter(func(time.Duration) time.Duration { return 0 })
	if got := none.wait(3, 0); got != 0 {
		t.Errorf("wait(3) = %s at least, want 0: the jitter is full", got)
	}
	if got := none.wait(13, 0); got != 150*time.Second {
		t.Errorf("wait(13) = %s at least, want 150s: a team that fails for long is left alone", got)
	}
	if got := none.wait(3, 90*time.Second); got != 90*time.Second {
		t.Errorf("wait = %s, want the 90 s that were asked for", got)
	}
	if got := none.wait(3, 48*time.Hour); got != time.Hour {
		t.Errorf("wait = %s, want an hour at the most", got)
	}
}
