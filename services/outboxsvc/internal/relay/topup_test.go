package relay_test

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
)

func TestATopUpIsAskedForOnceAndItsOutcomeReported(t *testing.T) {
	t.Parallel()
	for _, outcome := range []relay.PurchaseOutcome{relay.Paid, relay.Declined, relay.Rejected} {
		s := &sink{buy: func(relay.TopUp) relay.Purchase { return relay.Purchase{Outcome: outcome, Detail: "d"} }}
		st := newStand(s, 1)
		st.book.TopUps = append(st.book.TopUps, &relaytest.TopUp{TopUp: relay.TopUp{TopUpID: "t", TeamID: "acme", AmountNanoUSD: 500 * money.Credit}})
		for range 3 {
			if _, err := st.TopUpAll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := st.book.TopUps[0]; got.Outcome != outcome || got.Attempts != 1 {
			t.Errorf("top-up = %+v, want %s after one attempt", got, outcome)
		}
	}
}

func TestATopUpInDoubtIsLookedForBeforeItIsAskedForAgain(t *testing.T) {
	t.Parallel()
	var asked []relay.TopUp
	s := &sink{buy: func(u relay.TopUp) relay.Purchase {
		asked = append(asked, u)
		return relay.Purchase{Outcome: relay.Unsure}
	}}
	st := newStand(s, 1)
	st.book.TopUps = append(st.book.TopUps, &relaytest.TopUp{TopUp: relay.TopUp{TopUpID: "t", TeamID: "acme", AmountNanoUSD: money.Credit}})
	for _, pause := range []time.Duration{time.Minute, 10 * time.Minute, 21 * time.Hour, 0} {
		if _, err := st.TopUpAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		st.clock.Advance(pause)
	}
	if len(asked) != 3 || asked[0].Unsure || !asked[1].LookOnly || !asked[2].Unsure || asked[2].LookOnly {
		t.Errorf("asked %+v, want: asked for, looked for only, looked for and asked for, and not at all after the key's life", asked)
	}
}
