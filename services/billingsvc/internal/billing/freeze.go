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

// Limits bound a charge.
type Limits struct {
	// A charge is closed with this many events, or with this amount.
	Events int
	Amount money.NanoUSD
	// A charge above this waits, dead, until somebody requeues it. Zero: none
	// does.
	ApproveAbove money.NanoUSD
}

// full says whether a charge must be closed. A limit of zero is none.
func (l Limits) full(events int, amount money.NanoUSD) bool {
	return l.Events > 0 && events >= l.Events || l.Amount > 0 && amount >= l.Amount
}

// Rules are what the configuration decides of billing.
type Rules struct {
	Markup Markup // of teams without one of their own
	Policy Policy
	Limits Limits
}

// Entry is what is written to the books at once.
type Entry struct {
	Events      []Event
	Quarantined []Quarantined
	Balances    []Balance // sorted by team
	Charges     []Charge  // in order of team and seq; not sealed yet
	Transitions []Transition
	Grants      []Grant
}

// Freeze decides what a draft writes. balances holds the locked balance of each
// team of the draft; known tells which idempotency keys are on the books
// already, and from which row. An event of the same row is left out: the page
// is being repeated. One of another row is quarantined: the request would be
// billed twice.
func (r Rules) Freeze(d Draft, known map[string]Place, balances map[string]Balance, now time.Time) Entry {
	entry := Entry{Quarantined: slices.Clone(d.Quarantined)}
	seen := make(map[string]Place, len(known)+len(d.Events))
	for k, p := range known {
		seen[k] = p
	}
	teams := make(map[string]*account, len(balances))
	for _, e := range d.Events {
		place := Place{e.LogID, e.Seq}
		if other, ok := seen[e.IdempotencyKey]; ok {
			if other != place {
				entry.Quarantined = append(entry.Quarantined, Quarantined{e.Row, billedAlready(other)})
			}
			continue
		}
		a := teams[e.OrganizationID]
		if a == nil {
			a = r.open(&entry, balances[e.OrganizationID], now)
		}
		if !a.take(e, d.Deferred) {
			entry.Quarantined = append(entry.Quarantined, Quarantined{e.Row, "the team's sum would be out of range"})
			continue
		}
		teams[e.OrganizationID] = a
		seen[e.IdempotencyKey] = place
	}
	for _, a := range teams {
		a.close(d.Deferred)
	}
	entry.sort()
	return entry
}

func billedAlready(p Place) string {
	if p.LogID == 0 {
		return "request was billed already, by an event that is not from the ledger"
	}
	return fmt.Sprintf("request was billed already, by row %d of log %d", p.Seq, p.LogID)
}

// FreezeCarried freezes what locked balances carry.
func (r Rules) FreezeCarried(balances map[string]Balance, now time.Time) Entry {
	var entry Entry
	for _, b := range balances {
		r.open(&entry, b, now).close(false)
	}
	entry.sort()
	return entry
}

func (e *Entry) sort() {
	slices.SortFunc(e.Balances, func(a, b Balance) int { return cmp.Compare(a.TeamID, b.TeamID) })
	slices.SortFunc(e.Charges, func(a, b Charge) int {
		return cmp.Or(cmp.Compare(a.TeamID, b.TeamID), cmp.Compare(a.Seq, b.Seq))
	})
	slices.SortFunc(e.Events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.LogID, b.LogID), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.IdempotencyKey, b.IdempotencyKey))
	})
}

// account is a team while an entry is made.
type account struct {
	rules   Rules
	entry   *Entry
	balance Balance
	events  []Event // of the charge that comes next
	now     time.Time
	grant   *Grant
}

func (r Rules) open(entry *Entry, b Balance, now time.Time) *account {
	a := &account{rules: r, entry: entry, balance: b, now: now}
	if g, ok := r.Policy.startTrial(&a.balance, now); ok {
		a.grant = &g
	}
	return a
}

// take bills an event, and freezes a charge when it is full. It says whether
// the sums can hold it.
func (a *account) take(e Event, deferred bool) bool {
	if !a.balance.bill(e.PriceNanoUSD) {
		return false
	}
	a.events = append(a.events, e)
	if !deferred && a.rules.Limits.full(len(a.events), a.balance.CarriedNanoUSD) {
		a.freeze()
	}
	return true
}

// close freezes what is left, unless that is left to the next sync, and looks
// at the gate.
func (a *account) close(deferred bool) {
	if !deferred {
		a.freeze()
	}
	a.entry.Events = append(a.entry.Events, a.events...)
	cause := CauseSpend
	if a.grant != nil {
		a.entry.Grants = append(a.entry.Grants, *a.grant)
		cause = CauseTrial
	}
	if t, ok := a.rules.Policy.Move(&a.balance, cause, "", a.now); ok {
		a.entry.Transitions = append(a.entry.Transitions, t)
	}
	a.entry.Balances = append(a.entry.Balances, a.balance)
}

func (a *account) freeze() {
	c, ok := a.balance.freeze(a.now)
	if !ok {
		return
	}
	if above := a.rules.Limits.ApproveAbove; above > 0 && c.AmountNanoUSD > above {
		c.State, c.LastError = Dead, needsApproval
	}
	for i := range a.events {
		a.events[i].ChargeID = c.ChargeID
	}
	a.entry.Charges = append(a.entry.Charges, c)
	a.entry.Events = append(a.entry.Events, a.events...)
	a.events = nil
}

// needsApproval is the reason of a charge that was born dead.
const needsApproval = "the amount needs approval: requeue the charge to send it"

// bill adds a price, or says that the sums would overflow.
func (b *Balance) bill(price money.NanoUSD) bool {
	billed, ok1 := add(b.BilledNanoUSD, price)
	carried, ok2 := add(b.CarriedNanoUSD, price)
	_, ok3 := add(b.GrantedNanoUSD, -billed)
	if !ok1 || !ok2 || !ok3 {
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
		State: Pending, KeyRound: 1, FrozenAt: now, DueAt: now,
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
