package autumn

import (
	"crypto/rand"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	sim "github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// contracts are the Autumns that the contract is held against: the simulator
// always, and a real sandbox when AUTUMN_SANDBOX_KEY is set (AUTUMN_SANDBOX_URL
// and AUTUMN_SANDBOX_FEATURE say where and what). The sandbox's default plan must
// grant the feature. AUTUMN_SANDBOX_TOP_UP_PLAN is a one-off plan of it; without, the
// sandbox is not asked for top-ups.
func contracts(t *testing.T) map[string]Options {
	t.Helper()
	srv := httptest.NewServer(sim.New(sim.Options{SecretKey: testKey, DefaultGrant: 100, EventLag: -1, TopUpPlan: "top_up"}))
	t.Cleanup(srv.Close)
	all := map[string]Options{"simulator": {URL: srv.URL, Key: secret.New(testKey), FeatureID: "credits", TopUpPlan: "top_up"}}
	if key := os.Getenv("AUTUMN_SANDBOX_KEY"); key != "" {
		o := Options{URL: os.Getenv("AUTUMN_SANDBOX_URL"), Key: secret.New(key), FeatureID: os.Getenv("AUTUMN_SANDBOX_FEATURE"), TopUpPlan: os.Getenv("AUTUMN_SANDBOX_TOP_UP_PLAN")}
		if o.URL == "" {
			o.URL = "https://api.useautumn.com"
		}
		if o.FeatureID == "" {
			o.FeatureID = "credits"
		}
		all["sandbox"] = o
	}
	return all
}

// TestContract is what the sender relies on.
func TestContract(t *testing.T) {
	t.Parallel()
	for name, opt := range contracts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opt.Env, opt.InstallationID, opt.Concurrency, opt.Timeout = "sandbox", "contract-"+rand.Text(), 2, 30*time.Second
			lock := New(opt)
			opt.Dedupe = IdempotencyKey{}
			keyed := New(opt)
			team := "llm-proxy-contract-" + rand.Text()
			ch := relay.Charge{ChargeID: rand.Text(), TeamID: team, Seq: 1, AmountNanoUSD: 1_500_010, EventCount: 1}

			if err := lock.Ready(t.Context()); err != nil {
				t.Fatalf("Ready = %v", err)
			}
			if v := relay.Classify(ch, lock.Post(t.Context(), ch), relay.Collapsing); v.Do != relay.CreateCustomer {
				t.Errorf("an unknown customer: %+v, want it to be created", v)
			}
			if _, err := lock.Sight(t.Context(), team); fault.KindOf(err) != fault.NotFound {
				t.Errorf("Sight of an unknown customer = %v, want NotFound", err)
			}
			for range 2 {
				if err := lock.CreateCustomer(t.Context(), team); err != nil {
					t.Fatalf("CreateCustomer = %v", err)
				}
			}
			if v := relay.Classify(ch, lock.Post(t.Context(), ch), relay.Collapsing); v.Outcome != relay.Applied || v.Proof != relay.ProofDeductions {
				t.Errorf("a track: %+v, want all of it deducted", v)
			}
			if a := lock.Post(t.Context(), ch); a.Status != 409 || a.Code != relay.CodeLockExists {
				t.Errorf("the same lock: %+v, want 409 %s", a, relay.CodeLockExists)
			}
			used, err := lock.Sight(t.Context(), team)
			if err != nil || used.Used != "0.150001" || used.Granted == "0" || used.Remaining == "0" || used.Since.IsZero() {
				t.Errorf("Sight = %+v, %v, want 0.150001 used of a grant", used, err)
			}
			contractEvents(t, lock, ch)
			ch.KeyRound = 2
			if v := relay.Classify(ch, keyed.Post(t.Context(), ch), relay.Claiming); v.Outcome != relay.Applied {
				t.Errorf("a track under a key: %+v, want it applied", v)
			}
			if a := keyed.Post(t.Context(), ch); a.Status != 409 || a.Code != relay.CodeKeyClaimed {
				t.Errorf("the same key: %+v, want 409 %s", a, relay.CodeKeyClaimed)
			}
			big := relay.Charge{ChargeID: rand.Text(), TeamID: team, Seq: 2, AmountNanoUSD: 1_000_000 * money.Credit}
			if v := relay.Classify(big, lock.Post(t.Context(), big), relay.Collapsing); v.Outcome != relay.Applied {
				t.Errorf("more than the balance: %+v, want it applied", v)
			}
			s, err := lock.Sight(t.Context(), team)
			if err != nil || s.Remaining != "0" || s.Signed[0] != '-' {
				t.Errorf("Sight = %+v, %v, want nothing shown as left and a balance below zero", s, err)
			}
			contractRefusals(t, opt, team)
			if opt.TopUpPlan != "" {
				contractTopUps(t, lock, opt, team)
			}
		})
	}
}

// contractEvents: the list of events has what was deducted for a charge, some seconds
// later, and nothing of another.
func contractEvents(t *testing.T, c *Client, ch relay.Charge) {
	t.Helper()
	ch.FirstSentAt = time.Now()
	for try := 0; ; try++ {
		applied, found, err := c.Held(t.Context(), ch)
		if err == nil && found {
			if applied != ch.AmountNanoUSD {
				t.Errorf("the event says %s credits, want %s", applied.Credits(), ch.AmountNanoUSD.Credits())
			}
			break
		}
		if try == 60 {
			t.Errorf("Held = %t, %v after a minute, want the event", found, err)
			break
		}
		<-time.After(time.Second) // a list of the sandbox is seconds behind
	}
	other := ch
	other.ChargeID = rand.Text()
	if _, found, err := c.Held(t.Context(), other); found || err != nil {
		t.Errorf("Held of a charge that was never sent = %t, %v, want nothing", found, err)
	}
}

// contractRefusals: what is wrong is told apart from what is away.
func contractRefusals(t *testing.T, opt Options, team string) {
	t.Helper()
	ch := relay.Charge{ChargeID: rand.Text(), TeamID: team, Seq: 3, AmountNanoUSD: money.Credit, EventCount: 1}
	wrong := opt
	wrong.FeatureID = "llm-proxy-contract-no-feature"
	if v := relay.Classify(ch, New(wrong).Post(t.Context(), ch), relay.Collapsing); v.Outcome != relay.Refused {
		t.Errorf("an unknown feature: %+v, want it refused", v)
	}
	wrong = opt
	wrong.Key = secret.New("am_sk_test_of_nobody_0123456789")
	if err := New(wrong).Ready(t.Context()); fault.KindOf(err) != fault.Precondition {
		t.Errorf("Ready with a wrong key = %v, want Precondition", err)
	}
	wrong = opt
	wrong.Env = "live"
	if err := New(wrong).Ready(t.Context()); fault.KindOf(err) != fault.Precondition {
		t.Errorf("Ready in another environment = %v, want Precondition", err)
	}
}

// contractTopUps: a customer without a card is not charged, a plan that is not there
// is refused, and neither leaves an invoice that looks like a purchase.
func contractTopUps(t *testing.T, c *Client, opt Options, team string) {
	t.Helper()
	top := relay.TopUp{TopUpID: rand.Text(), TeamID: team, AmountNanoUSD: 10 * money.Credit, Attempts: 1, FirstSentAt: time.Now()}
	if p := c.Buy(t.Context(), top); p.Outcome != relay.Declined {
		t.Errorf("a top-up without a card: %+v, want it declined", p)
	}
	opt.TopUpPlan = "llm-proxy-contract-no-plan"
	top.TopUpID = rand.Text()
	if p := New(opt).Buy(t.Context(), top); p.Outcome != relay.Rejected {
		t.Errorf("an unknown plan: %+v, want it refused", p)
	}
	top.Unsure, top.LookOnly = true, true
	if p := c.Buy(t.Context(), top); p.Outcome != relay.Unsure {
		t.Errorf("a look for an invoice: %+v, want none found", p)
	}
}
