package store_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

func compute(key string, price money.NanoUSD) billing.Event {
	return billing.Event{
		IdempotencyKey: key, OrganizationID: "acme", EventType: "compute", Quantity: 60, PriceNanoUSD: price, CostNanoUSD: 5,
		SessionIDs: []string{"session_1", "session_2"}, OccurredAt: noon, Extra: map[string]string{"machine": "large"},
	}
}

func TestRecordedEventsAreBilledOnceFromTheSameBalance(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 1000)
	b.ledger.add(1, "acme", 10)
	b.sync()
	first, err := b.svc.Record(t.Context(), compute("compute:1", 205))
	if err != nil || !first.Created {
		t.Fatalf("Record = %+v, %v, want it created", first, err)
	}
	again, err := b.svc.Record(t.Context(), compute("compute:1", 205))
	if err != nil || again.Created || again.Event.PriceNanoUSD != 205 || len(again.Event.SessionIDs) != 2 {
		t.Errorf("again, Record = %+v, %v, want the one that is there", again, err)
	}
	later := compute("compute:1", 205)
	later.OccurredAt = noon.AddDate(0, 0, 40) // another partition
	later.OccurredAt = noon.AddDate(0, -2, 0)
	if r, err := b.svc.Record(t.Context(), later); err != nil || r.Created {
		t.Errorf("on another day, Record = %+v, %v, want the one that is there", r, err)
	}
	if _, err := b.svc.Record(t.Context(), compute("compute:1", 206)); fault.KindOf(err) != fault.Exists {
		t.Errorf("another event under the key = %v, want Exists", err)
	}
	b.state("acme", billing.Trial, 765)
	if got := b.balance("acme"); got.CarriedNanoUSD != 205 || got.BilledNanoUSD != 235 {
		t.Errorf("balance = %+v, want 205 carried to the next sync", got)
	}
	b.sync()
	if got := b.balance("acme"); got.CarriedNanoUSD != 5 || got.ChargedNanoUSD != 230 {
		t.Errorf("balance = %+v, want it frozen", got)
	}
	b.sound()
}

func TestRecordRefusesNonsense(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	for name, change := range map[string]func(*billing.Event){
		"no key":               func(e *billing.Event) { e.IdempotencyKey = "" },
		"a key of the ledger":  func(e *billing.Event) { e.IdempotencyKey = "llm:req_1" },
		"a correction's key":   func(e *billing.Event) { e.IdempotencyKey = "adjust:1" },
		"a key that is long":   func(e *billing.Event) { e.IdempotencyKey = strings.Repeat("k", 250) },
		"no team":              func(e *billing.Event) { e.OrganizationID = "" },
		"the ledger's type":    func(e *billing.Event) { e.EventType = "llm" },
		"a type that is text":  func(e *billing.Event) { e.EventType = "Compute seconds" },
		"a negative price":     func(e *billing.Event) { e.PriceNanoUSD = -1 },
		"a negative quantity":  func(e *billing.Event) { e.Quantity = -1 },
		"the future":           func(e *billing.Event) { e.OccurredAt = time.Now().Add(time.Hour) },
		"the last century":     func(e *billing.Event) { e.OccurredAt = noon.AddDate(-30, 0, 0) },
		"an empty session":     func(e *billing.Event) { e.SessionIDs = []string{""} },
		"metadata without end": func(e *billing.Event) { e.Extra = map[string]string{"k": strings.Repeat("v", 300)} },
	} {
		e := compute("compute:1", 10)
		change(&e)
		if _, err := b.svc.Record(t.Context(), e); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: Record = %v, want Invalid", name, err)
		}
	}
}

// Callers at once, among them a sync: every key is billed once.
func TestCallersRecordAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	for range 20 {
		b.ledger.add(1, "acme", 10)
	}
	var g errgroup.Group
	for range 6 {
		svc := b.replica()
		g.Go(func() error {
			for i := range 10 {
				e := compute(fmt.Sprint("compute:", i), 100)
				e.OccurredAt = time.Time{}
				if _, err := svc.Record(t.Context(), e); err != nil {
					return err
				}
				if _, err := svc.Sync(t.Context()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := b.balance("acme"); got.BilledNanoUSD != 20*30+10*100 || got.CarriedNanoUSD != 0 {
		t.Errorf("balance = %+v, want 1600 billed and charged", got)
	}
	b.sound()
}

// Mistake 20: that an event was recorded before is told by its key, so that it does
// not matter in which words Postgres says so: here in those of nobody.
func TestMistake20ADuplicateIsNotToldByTheTextOfAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.exec(`
		create function billing.mute() returns trigger language plpgsql as $$
		begin
			if exists (select from billing.billing_events where idempotency_key = new.idempotency_key) then
				raise unique_violation using message = 'x';
			end if;
			return new;
		end $$`)
	b.exec(`create trigger mute before insert on billing.billing_events for each row execute function billing.mute()`)
	var created atomic.Int64
	var g errgroup.Group
	for range 6 {
		svc := b.replica()
		g.Go(func() error {
			e := compute("compute:1", 100)
			e.OccurredAt = noon
			r, err := svc.Record(t.Context(), e)
			if r.Created {
				created.Add(1)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil || created.Load() != 1 {
		t.Errorf("created %d times, %v, want once and no error", created.Load(), err)
	}
}

func TestACorrectionIsAnEventOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 100)
	b.sync()
	a := billing.Adjustment{
		TeamID: "acme", IdempotencyKey: "ticket-1", PriceNanoUSD: -120, Corrects: "llm:req_1_1", By: billing.By{Actor: "ops", Reason: "a failed run"},
	}
	for _, created := range []bool{true, false} {
		r, err := b.svc.Adjust(t.Context(), a)
		if err != nil || r.Created != created || r.Event.IdempotencyKey != "adjust:ticket-1" || r.Event.Reason != "a failed run" {
			t.Errorf("Adjust = %+v, %v, want created: %t", r, err, created)
		}
	}
	if got := b.balance("acme"); got.BilledNanoUSD != 180 || got.CarriedNanoUSD != -120 {
		t.Errorf("balance = %+v, want 180 billed, 120 to be set off", got)
	}
	b.ledger.add(1, "acme", 50)
	b.sync()
	if got := b.balance("acme"); got.ChargedNanoUSD != 330 || got.CarriedNanoUSD != 0 {
		t.Errorf("balance = %+v, want the rest charged", got)
	}
	a.IdempotencyKey, a.Corrects = "ticket-2", "llm:req_9_9"
	if _, err := b.svc.Adjust(t.Context(), a); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Adjust of an event that is not there = %v, want NotFound", err)
	}
	ops, err := b.svc.Operations(t.Context(), billing.HistoryQuery{Action: "adjust", Limit: 10})
	if err != nil || len(ops) != 1 || ops[0].Actor != "ops" {
		t.Errorf("operations = %+v, %v, want one", ops, err)
	}
	b.sound()
}

// Mistake 8: a row of tokens that cost nothing is on the books, and can be
// priced later.
func TestMistake08ARowThatCostNothingIsKeptAndCanBePricedLater(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 0)
	if r := b.sync(); r.Events != 1 || r.Charges != 0 {
		t.Errorf("Sync = %+v, want an event and no charge", r)
	}
	events, err := b.svc.Events(t.Context(), billing.EventQuery{IdempotencyKey: "llm:req_1_1", Limit: 1})
	if err != nil || len(events) != 1 || events[0].Quantity != 15 || events[0].PriceNanoUSD != 0 {
		t.Fatalf("events = %+v, %v, want 15 tokens for nothing", events, err)
	}
	_, err = b.svc.Adjust(t.Context(), billing.Adjustment{
		TeamID: "acme", IdempotencyKey: "reprice:req_1_1", PriceNanoUSD: 60, Corrects: "llm:req_1_1", By: billing.By{Reason: "the price was missing"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.sync()
	if got := b.balance("acme").ChargedNanoUSD; got != 60 {
		t.Errorf("charged %d, want 60", got)
	}
	b.sound()
}

func TestQuarantinedRowsAreBilledWhenTheyCanBe(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "", 100)
	b.ledger.add(1, "acme", 10)
	b.ledger.add(1, "acme", 10)
	b.ledger.rows[1][2].RequestID = "req_1_2" // billed already
	b.sync()
	waiting, err := b.svc.Quarantined(t.Context(), billing.QuarantineQuery{Limit: 10})
	if err != nil || len(waiting) != 2 || waiting[0].Reason != "no team" {
		t.Fatalf("quarantine = %+v, %v, want two rows", waiting, err)
	}
	r := billing.Rerating{Places: []billing.Place{{LogID: 1, Seq: 1}, {LogID: 1, Seq: 3}}, By: billing.By{Actor: "ops", Reason: "found the team"}}
	out, err := b.svc.Rerate(t.Context(), r)
	if err != nil || len(out.Events) != 0 || len(out.Still) != 2 {
		t.Errorf("Rerate without a team = %+v, %v, want nothing billed", out, err)
	}
	r.TeamID, r.DryRun = "zeta", true
	if out, err := b.svc.Rerate(t.Context(), r); err != nil || len(out.Events) != 2 {
		t.Errorf("a dry run = %+v, %v, want what would be tried", out, err)
	}
	r.DryRun = false
	for _, want := range []int{1, 0} {
		out, err := b.svc.Rerate(t.Context(), r)
		if err != nil || len(out.Events) != want || len(out.Still) != 1 {
			t.Errorf("Rerate = %+v, %v, want %d billed and the other one waiting", out, err, want)
		}
	}
	b.sync()
	if got := b.balance("zeta"); got.ChargedNanoUSD != 300 {
		t.Errorf("zeta = %+v, want 300 charged", got)
	}
	a := b.audit()
	if a.Quarantined != 1 || a.QuarantinedNanoUSD != 10 || len(a.Faults) != 0 {
		t.Errorf("audit = %+v, want one row left and no fault", a)
	}
	// The page is read again after a crash: the row is an event and stays one.
	b.exec(`update billing.cursors set seq = 0`)
	b.sync()
	b.sound()
}

// One key, eight teams, eight days, at once: one of them has it. The unique
// index holds within a day only.
func TestAKeyIsOneEventsOnEveryDay(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	for turn := range 5 {
		var g errgroup.Group
		created := make(chan string, 8)
		for i := range 8 {
			e := compute(fmt.Sprint("compute:", turn), 100)
			e.OrganizationID, e.OccurredAt = fmt.Sprint("team", i), noon.AddDate(0, 0, -i)
			g.Go(func() error {
				r, err := b.svc.Record(t.Context(), e)
				if r.Created {
					created <- e.OrganizationID
				}
				if fault.KindOf(err) == fault.Exists {
					return nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if len(created) != 1 {
			t.Errorf("%d events were made under one key, want 1", len(created))
		}
	}
	b.sound()
}
