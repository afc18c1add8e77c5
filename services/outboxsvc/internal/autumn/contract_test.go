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
// grant the feature.
func contracts(t *testing.T) map[string]Options {
	t.Helper()
	srv := httptest.NewServer(sim.New(sim.Options{DefaultGrant: 100, EventLag: -1}))
	t.Cleanup(srv.Close)
	all := map[string]Options{"simulator": {URL: srv.URL, Key: secret.New(testKey), FeatureID: "credits"}}
	if key := os.Getenv("AUTUMN_SANDBOX_KEY"); key != "" {
		o := Options{URL: os.Getenv("AUTUMN_SANDBOX_URL"), Key: secret.New(key), FeatureID: os.Getenv("AUTUMN_SANDBOX_FEATURE")}
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
		})
	}
}
