package billing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// books is the smallest store: what Freeze decided, applied to maps.
type books struct {
	known    map[string]Place
	balances map[string]Balance
	charges  map[string][]Charge
	events   map[string][]Event
}

func newBooks() *books {
	return &books{map[string]Place{}, map[string]Balance{}, map[string][]Charge{}, map[string][]Event{}}
}

func (b *books) book(d Draft) Entry {
	for _, e := range d.Events {
		if _, ok := b.balances[e.OrganizationID]; !ok {
			b.balances[e.OrganizationID] = NewBalance(e.OrganizationID)
		}
	}
	entry := Rules{}.Freeze(d, b.known, b.balances, noon)
	for _, e := range entry.Events {
		b.known[e.IdempotencyKey] = Place{e.LogID, e.Seq}
		b.events[e.OrganizationID] = append(b.events[e.OrganizationID], e)
	}
	for _, bal := range entry.Balances {
		b.balances[bal.TeamID] = bal
	}
	for _, c := range entry.Charges {
		b.charges[c.TeamID] = append(b.charges[c.TeamID], c)
	}
	return entry
}

// However rows are split into pages, and whatever the markup: prices = charges
// + carry for every team, charges are whole micro-credits, and less than one is
// carried.
func TestPricesAreChargesPlusCarryHoweverPagesAreSplit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		markup := Markup{1 + rnd.Int64N(1_000_000_000)}
		rows := make([]Row, 1+rnd.IntN(60))
		for i := range rows {
			rows[i] = Row{
				LogID: 1, Seq: int64(i + 1), RequestID: fmt.Sprint(i), EndedAt: noon,
				TeamID: fmt.Sprint("team", rnd.IntN(3)), CostNanoUSD: money.NanoUSD(rnd.Int64N(200) - 60),
			}
			if rnd.IntN(5) == 0 {
				rows[i].CostNanoUSD *= 1_000_000_000
			}
		}
		want := map[string]money.NanoUSD{}
		for _, r := range rows {
			price, err := markup.Price(r.CostNanoUSD)
			if err != nil {
				t.Fatal(err)
			}
			want[r.TeamID] += price
		}
		b := newBooks()
		for at := 0; at < len(rows); {
			n := 1 + rnd.IntN(len(rows)-at)
			b.book(tariff{standard: markup}.Draft(Page{LogID: 1, AfterSeq: int64(at), Rows: rows[at : at+n]}, noon))
			at += n
		}
		for team, sum := range want {
			var charged money.NanoUSD
			for i, c := range b.charges[team] {
				if c.AmountNanoUSD <= 0 || c.AmountNanoUSD%10 != 0 || c.Seq != int64(i+1) {
					t.Fatalf("seed %d: charge %d of %s is %+v", seed, i+1, team, c)
				}
				charged += c.AmountNanoUSD
			}
			bal := b.balances[team]
			if charged+bal.CarriedNanoUSD != sum || bal.ChargedNanoUSD != charged || bal.BilledNanoUSD != sum || bal.CarriedNanoUSD >= 10 {
				t.Fatalf("seed %d: %s: prices %d, charges %d, balance %+v", seed, team, sum, charged, bal)
			}
		}
	}
}

func TestARepeatedPageChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBooks()
	d := tariff{standard: mustMarkup(t, "3")}.Draft(Page{LogID: 1, Rows: []Row{
		{LogID: 1, Seq: 1, RequestID: "a", TeamID: "acme", CostNanoUSD: 100, EndedAt: noon},
	}}, noon)
	b.book(d)
	before := b.balances["acme"]
	if entry := b.book(d); len(entry.Events)+len(entry.Charges)+len(entry.Balances)+len(entry.Quarantined) != 0 {
		t.Errorf("the second time wrote %+v", entry)
	}
	if diff := cmp.Diff(before, b.balances["acme"]); diff != "" {
		t.Errorf("balance (-want +got):\n%s", diff)
	}
}

func TestARequestIsNotBilledTwice(t *testing.T) {
	t.Parallel()
	b := newBooks()
	m := mustMarkup(t, "1")
	b.book(tariff{standard: m}.Draft(Page{LogID: 1, Rows: []Row{{LogID: 1, Seq: 1, RequestID: "a", TeamID: "acme", CostNanoUSD: 100, EndedAt: noon}}}, noon))
	entry := b.book(tariff{standard: m}.Draft(Page{LogID: 2, Rows: []Row{
		{LogID: 2, Seq: 1, RequestID: "a", TeamID: "acme", CostNanoUSD: 70, EndedAt: noon},
		{LogID: 2, Seq: 2, RequestID: "b", TeamID: "acme", CostNanoUSD: 50, EndedAt: noon},
		{LogID: 2, Seq: 3, RequestID: "b", TeamID: "acme", CostNanoUSD: 50, EndedAt: noon},
	}}, noon))
	var reasons []string
	for _, q := range entry.Quarantined {
		reasons = append(reasons, q.Reason)
	}
	want := []string{"request was billed already, by row 1 of log 1", "request was billed already, by row 2 of log 2"}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("quarantined (-want +got):\n%s", diff)
	}
	if got := b.balances["acme"].BilledNanoUSD; got != 150 {
		t.Errorf("billed = %d, want 150", got)
	}
}

func TestCorrectionsCarryUntilTheSumIsPositive(t *testing.T) {
	t.Parallel()
	b := newBooks()
	m := mustMarkup(t, "1")
	for i, cost := range []money.NanoUSD{-100, 60, 39, 5, 17} {
		b.book(tariff{standard: m}.Draft(Page{LogID: 1, AfterSeq: int64(i), Rows: []Row{
			{LogID: 1, Seq: int64(i + 1), RequestID: fmt.Sprint(i), TeamID: "acme", CostNanoUSD: cost, EndedAt: noon},
		}}, noon))
	}
	if c := b.charges["acme"]; len(c) != 1 || c[0].AmountNanoUSD != 20 || c[0].CarriedNanoUSD != 1 {
		t.Errorf("charges = %+v, want one of 20 that carries 1", c)
	}
}

func TestAnEventThatWouldOverflowTheTeamIsQuarantined(t *testing.T) {
	t.Parallel()
	b := newBooks()
	b.balances["acme"] = Balance{TeamID: "acme", BilledNanoUSD: math.MaxInt64 - 99, ChargedNanoUSD: math.MaxInt64 - 99, NextChargeSeq: 5}
	entry := b.book(tariff{standard: mustMarkup(t, "1")}.Draft(Page{LogID: 1, Rows: []Row{
		{LogID: 1, Seq: 1, RequestID: "a", TeamID: "acme", CostNanoUSD: 100, EndedAt: noon},
		{LogID: 1, Seq: 2, RequestID: "b", TeamID: "acme", CostNanoUSD: 99, EndedAt: noon},
	}}, noon))
	if len(entry.Quarantined) != 1 || entry.Quarantined[0].Row.RequestID != "a" || len(entry.Events) != 1 {
		t.Errorf("entry = %+v, want a quarantined and b billed", entry)
	}
}

func TestSealDoesNotDependOnTheOrderOfEvents(t *testing.T) {
	t.Parallel()
	var a, b Charge
	a.Seal([]Item{{"llm:x", 3}, {"llm:y", 4}})
	b.Seal([]Item{{"llm:y", 4}, {"llm:x", 3}})
	// printf 'llm:x=3\nllm:y=4\n' | sha256sum
	const want = "b3b98496f8f81061c05340dcaad8ae752ad0c6660df5f66394968ef536258854"
	if a.Checksum != want || b.Checksum != want || a.EventCount != 2 {
		t.Errorf("sealed %d events, %s and %s, want %s", a.EventCount, a.Checksum, b.Checksum, want)
	}
}

func TestUUIDsAreVersion7AndSortByTime(t *testing.T) {
	t.Parallel()
	earlier, later := newUUID(noon), newUUID(noon.Add(1e6))
	if len(earlier) != 36 || earlier[14] != '7' || earlier >= later {
		t.Errorf("newUUID gave %s, then %s", earlier, later)
	}
}
