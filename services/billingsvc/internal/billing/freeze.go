package billing

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Entry is what one page writes to the books.
type Entry struct {
	Events      []Event
	Quarantined []Quarantined
	Balances    []Balance // sorted by team
	Charges     []Charge  // at most one a team; not sealed yet
}

// Freeze decides what a draft writes. balances holds the locked balance of each
// team of the draft; known tells which idempotency keys are on the books
// already, and from which row. An event of the same row is left out: the page
// is being repeated. One of another row is quarantined: the request would be
// billed twice.
func (d Draft) Freeze(known map[string]Place, balances map[string]Balance, now time.Time) Entry {
	entry := Entry{Quarantined: slices.Clone(d.Quarantined)}
	seen := make(map[string]Place, len(known)+len(d.Events))
	for k, p := range known {
		seen[k] = p
	}
	teams := map[string][]Event{}
	next := make(map[string]Balance, len(balances))
	for _, e := range d.Events {
		place := Place{e.LogID, e.Seq}
		if other, ok := seen[e.IdempotencyKey]; ok {
			if other != place {
				reason := fmt.Sprintf("request was billed already, by row %d of log %d", other.Seq, other.LogID)
				entry.Quarantined = append(entry.Quarantined, Quarantined{e.Row, reason})
			}
			continue
		}
		b, ok := next[e.OrganizationID]
		if !ok {
			b = balances[e.OrganizationID]
		}
		if !b.bill(e.PriceNanoUSD) {
			entry.Quarantined = append(entry.Quarantined, Quarantined{e.Row, "the team's sum would be out of range"})
			continue
		}
		seen[e.IdempotencyKey] = place
		next[e.OrganizationID] = b
		teams[e.OrganizationID] = append(teams[e.OrganizationID], e)
	}
	for team, b := range next {
		events := teams[team]
		if c, ok := b.freeze(now); ok {
			for i := range events {
				events[i].ChargeID = c.ChargeID
			}
			entry.Charges = append(entry.Charges, c)
		}
		entry.Balances = append(entry.Balances, b)
		entry.Events = append(entry.Events, events...)
	}
	slices.SortFunc(entry.Balances, func(a, b Balance) int { return cmp.Compare(a.TeamID, b.TeamID) })
	slices.SortFunc(entry.Charges, func(a, b Charge) int { return cmp.Compare(a.TeamID, b.TeamID) })
	slices.SortFunc(entry.Events, func(a, b Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return entry
}

// bill adds a price, or says that the sums would overflow.
func (b *Balance) bill(price money.NanoUSD) bool {
	billed, ok1 := add(b.BilledNanoUSD, price)
	carried, ok2 := add(b.CarriedNanoUSD, price)
	if !ok1 || !ok2 {
		return false
	}
	b.BilledNanoUSD, b.CarriedNanoUSD = billed, carried
	return true
}

func add(a, b money.NanoUSD) (money.NanoUSD, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// freeze takes the whole micro-credits out of the carry as a charge. A carry of
// less than one, or a negative one, stays.
func (b *Balance) freeze(now time.Time) (Charge, bool) {
	amount := b.CarriedNanoUSD / money.MicroCredit * money.MicroCredit
	if amount <= 0 {
		return Charge{}, false
	}
	b.ChargedNanoUSD += amount
	b.CarriedNanoUSD -= amount
	c := Charge{
		ChargeID: newUUID(now), TeamID: b.TeamID, Seq: b.NextChargeSeq,
		AmountNanoUSD: amount, CarriedNanoUSD: b.CarriedNanoUSD,
		State: Pending, FrozenAt: now, DueAt: now,
	}
	b.NextChargeSeq++
	return c, true
}

// Item is what a charge's checksum covers of an event.
type Item struct {
	IdempotencyKey string
	PriceNanoUSD   money.NanoUSD
}

// Seal counts a charge's events and computes their checksum: the hex SHA-256 of
// the lines "idempotency_key=price_nano_usd\n" in order of the key's bytes.
func (c *Charge) Seal(items []Item) {
	items = slices.Clone(items)
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.IdempotencyKey, b.IdempotencyKey) })
	h := sha256.New()
	for _, it := range items {
		fmt.Fprintf(h, "%s=%d\n", it.IdempotencyKey, int64(it.PriceNanoUSD))
	}
	c.EventCount, c.Checksum = int64(len(items)), hex.EncodeToString(h.Sum(nil))
}
