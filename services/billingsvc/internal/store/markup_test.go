package store_test

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Mistake 19: markups are exact decimals, and a remainder is carried, not lost.
func TestMistake19ATeamsMarkupHoldsFromItsInstantOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	set := func(markup string, hours int) {
		t.Helper()
		_, err := b.svc.SetMarkup(t.Context(), billing.TeamMarkup{
			TeamID: "acme", Markup: markup, EffectiveFrom: noon.AddDate(0, 0, hours), Actor: "sales", Reason: "contract",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set("1.3", 1)
	set("2", 2)
	set("1.25", 2) // the later one for an instant holds
	set("", 3)
	for day, want := range map[int]money.NanoUSD{0: 300, 1: 130, 2: 125, 3: 300} {
		row := b.ledger.add(int64(day+1), "acme", 100)
		row.EndedAt = noon.AddDate(0, 0, day)
		b.ledger.rows[int64(day+1)][0] = row
		b.ledger.add(int64(day+1), "zeta", 100)
		b.sync()
		events, err := b.svc.Events(t.Context(), billing.EventQuery{IdempotencyKey: "llm:" + row.RequestID, Limit: 1})
		if err != nil || len(events) != 1 || events[0].PriceNanoUSD != want {
			t.Errorf("day %d: event = %+v, %v, want %d", day, events, err, want)
		}
	}
	if got := b.balance("acme"); got.BilledNanoUSD != 855 || got.ChargedNanoUSD+got.CarriedNanoUSD != 855 {
		t.Errorf("acme = %+v, want 855 billed", got)
	}
	if got := b.balance("zeta").BilledNanoUSD; got != 1200 {
		t.Errorf("zeta was billed %d, want 1200", got)
	}
	list, err := b.svc.ListMarkups(t.Context(), "acme", "", 10)
	if err != nil || len(list) != 4 || list[0].Markup != "" || list[3].Markup != "1.3" {
		t.Errorf("markups = %+v, %v, want four, newest first", list, err)
	}
	for _, bad := range []billing.TeamMarkup{
		{TeamID: "acme", Markup: "0", Reason: "x"}, {TeamID: "", Markup: "1", Reason: "x"}, {TeamID: "acme", Markup: "1"},
	} {
		if _, err := b.svc.SetMarkup(t.Context(), bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("SetMarkup(%+v) = %v, want Invalid", bad, err)
		}
	}
	b.sound()
}
