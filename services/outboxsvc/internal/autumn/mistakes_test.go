package autumn

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
	sim "github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// The numbers are those of the list of mistakes of the system that this one
// replaces, as far as they concern the sender.

// desk is a relay between a book and the simulator.
type desk struct {
	*relay.Service
	book   *relaytest.Book
	clock  *relaytest.Clock
	sim    *sim.Server
	client *Client
}

func newDesk(t *testing.T, opts sim.Options, change ...func(*Options)) *desk {
	t.Helper()
	d := &desk{clock: relaytest.NewClock()}
	opts.Now = d.clock.Now
	d.sim = newSim(opts)
	d.client = client(t, d.sim, change...)
	d.book = relaytest.New(d.clock.Now)
	d.Service = relay.New(d.book, d.client, relay.Options{
		Worker: "test", Concurrency: 8, Now: d.clock.Now, Jitter: func(d time.Duration) time.Duration { return d },
	})
	return d
}

// run delivers for an hour.
func (d *desk) run(t *testing.T) {
	t.Helper()
	for range 60 {
		_, _ = d.Deliver(t.Context())
		d.clock.Advance(time.Minute)
	}
}

func TestMistake01ATimeoutAndARetryDoNotChargeTwice(t *testing.T) {
	t.Parallel()
	for _, device := range []Dedupe{Lock{}, IdempotencyKey{}} {
		for _, fault := range []string{sim.FaultDropAfterApply, sim.FaultError500AfterApply, sim.FaultTruncatedBody, sim.FaultClaimThenDie} {
			d := newDesk(t, sim.Options{DefaultGrant: 100}, func(o *Options) { o.Dedupe = device })
			if err := d.sim.SetFaults(sim.Fault{Path: "/v1/track", Fault: fault, Nth: 1, Times: 2}); err != nil {
				t.Fatal(err)
			}
			d.book.Add("c1", "acme", 1, 4*money.Credit)
			d.run(t)
			if got := d.sim.Applied()["acme"]; got.Calls != 1 || got.Credits != sim.Credits(4) || d.book.Charge("c1").State != relaytest.Posted {
				t.Errorf("%T, %s: applied %+v, charge %+v, want 4 credits once", device, fault, got, d.book.Charge("c1"))
			}
		}
	}
}

func TestMistake02ATeamBeyondItsLimitIsStillCharged(t *testing.T) {
	t.Parallel()
	d := newDesk(t, sim.Options{DefaultGrant: 1})
	d.book.Add("c1", "acme", 1, 40*money.Credit)
	d.run(t)
	if got := d.sim.Applied()["acme"].Credits; got != sim.Credits(40) {
		t.Errorf("applied %s of 40 credits to a grant of 1", got)
	}
}

func TestMistake03AcceptedIsNotApplied(t *testing.T) {
	t.Parallel()
	for _, device := range []Dedupe{Lock{}, IdempotencyKey{}} {
		d := newDesk(t, sim.Options{DefaultGrant: 100}, func(o *Options) { o.Dedupe = device })
		if err := d.sim.SetFaults(sim.Fault{Path: "/v1/track", Fault: sim.FaultAccepted202Lost, Nth: 1}); err != nil {
			t.Fatal(err)
		}
		d.book.Add("c1", "acme", 1, 4*money.Credit)
		if _, err := d.Deliver(t.Context()); err != nil || d.book.Charge("c1").State != relaytest.Ambiguous {
			t.Errorf("%T: after a 202 the charge is %s, want it in doubt", device, d.book.Charge("c1").State)
		}
		d.run(t)
		if got := d.sim.Applied()["acme"]; got.Calls != 1 || d.book.Charge("c1").State != relaytest.Posted {
			t.Errorf("%T: applied %+v, charge %s, want once", device, got, d.book.Charge("c1").State)
		}
	}
}

func TestMistake09AnOutageOfDaysKillsNoCharge(t *testing.T) {
	t.Parallel()
	d := newDesk(t, sim.Options{DefaultGrant: 100})
	if err := d.sim.SetFaults(sim.Fault{Fault: sim.FaultHTML502}); err != nil {
		t.Fatal(err)
	}
	d.book.Add("c1", "acme", 1, 4*money.Credit)
	for range 3 * 24 * 6 {
		_, _ = d.Deliver(t.Context())
		d.clock.Advance(10 * time.Minute)
	}
	if err := d.sim.SetFaults(); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	if got := d.sim.Applied()["acme"]; got.Calls != 1 || d.book.Charge("c1").State != relaytest.Posted {
		t.Errorf("applied %+v, charge %+v, want once", got, d.book.Charge("c1"))
	}
}

func TestMistake11AnswersAreToldApart(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]relay.Outcome{
		sim.FaultRateLimited: relay.NotApplied, sim.FaultError503: relay.NotApplied, sim.FaultFeatureRenamed: relay.Refused,
		sim.FaultError503AfterApply: relay.Unknown, sim.FaultVersionDrift: relay.Unknown, sim.FaultNoBalance: relay.NotApplied,
		sim.FaultPartial: relay.PartlyApplied, sim.FaultFalseLock: relay.Unknown,
	} {
		s := newSim(sim.Options{DefaultGrant: 100})
		c := client(t, s)
		if err := c.CreateCustomer(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if err := s.SetFaults(sim.Fault{Path: "/v1/track", Fault: fault, RetryAfterS: 9}); err != nil {
			t.Fatal(err)
		}
		v := relay.Classify(charge, c.Post(t.Context(), charge), relay.Collapsing)
		if v.Outcome != want {
			t.Errorf("%s = %+v, want %s", fault, v, want)
		}
		if fault == sim.FaultRateLimited && v.RetryAfter != 9*time.Second {
			t.Errorf("a 429 asked for 9s, heard %s", v.RetryAfter)
		}
	}
}

func TestMistake13PostsAndReadsNameTheSameCustomer(t *testing.T) {
	t.Parallel()
	s := newSim(sim.Options{DefaultGrant: 100})
	c := client(t, s)
	team := relay.Charge{ChargeID: "c1", TeamID: "team/with ümlaut", AmountNanoUSD: 3 * money.Credit}
	if err := c.CreateCustomer(t.Context(), team.TeamID); err != nil {
		t.Fatal(err)
	}
	c.Post(t.Context(), team)
	if got, err := c.Sight(t.Context(), team.TeamID); err != nil || got.Used != "3" {
		t.Errorf("Sight = %+v, %v, want the 3 credits that were posted", got, err)
	}
}

func TestMistake15ADeclinedCardIsNoTopUp(t *testing.T) {
	t.Parallel()
	up := relay.TopUp{TopUpID: "t1", TeamID: "acme", AmountNanoUSD: 500 * money.Credit}
	for card, want := range map[string]relay.PurchaseOutcome{
		sim.CardGood: relay.Paid, sim.CardDeclined: relay.Declined, sim.CardAction: relay.Declined, "": relay.Declined,
	} {
		s := newSim(sim.Options{DefaultGrant: 100, Card: card})
		c := client(t, s, func(o *Options) { o.TopUpPlan = "top_up" })
		if err := c.CreateCustomer(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		got := c.Buy(t.Context(), up)
		sight, err := c.Sight(t.Context(), "acme")
		granted := map[bool]string{true: "600", false: "100"}[want == relay.Paid]
		if err != nil || got.Outcome != want || sight.Granted != granted {
			t.Errorf("card %q: %+v, granted %s, %v, want %s and %s", card, got, sight.Granted, err, want, granted)
		}
	}
}

func TestMistake17ATopUpWhoseAnswerWasLostIsNotBoughtAgain(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{sim.FaultDropAfterApply, sim.FaultError500AfterApply, sim.FaultTruncatedBody} {
		d := newDesk(t, sim.Options{DefaultGrant: 100, Card: sim.CardGood}, func(o *Options) { o.TopUpPlan = "top_up" })
		d.sim.Grant("acme", 0)
		if err := d.sim.SetFaults(sim.Fault{Path: "/v1/attach", Fault: fault, Nth: 1}); err != nil {
			t.Fatal(err)
		}
		d.book.TopUps = append(d.book.TopUps, &relaytest.TopUp{TopUp: relay.TopUp{TopUpID: "t1", TeamID: "acme", AmountNanoUSD: 500 * money.Credit}})
		for range 5 {
			if _, err := d.TopUpAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.clock.Advance(15 * time.Minute)
		}
		got, err := d.client.Sight(t.Context(), "acme")
		if err != nil || got.Granted != "600" || d.book.TopUps[0].Outcome != relay.Paid {
			t.Errorf("%s: granted %s, %v, top-up %+v, want 500 bought once", fault, got.Granted, err, d.book.TopUps[0])
		}
	}
}

// TestAnInvoicePaysOneTopUp loses the first attempt of a second top-up on its way, soon
// after a first one was paid: that one's invoice is not taken for the second's.
func TestAnInvoicePaysOneTopUp(t *testing.T) {
	t.Parallel()
	d := newDesk(t, sim.Options{DefaultGrant: 100, Card: sim.CardGood}, func(o *Options) { o.TopUpPlan = "top_up" })
	d.sim.Grant("acme", 0)
	first := d.client.Buy(t.Context(), relay.TopUp{TopUpID: "t1", TeamID: "acme", AmountNanoUSD: 500 * money.Credit})
	if first.Outcome != relay.Paid || first.InvoiceID == "" {
		t.Fatalf("the first: %+v, want paid with an invoice", first)
	}
	second := relay.TopUp{TopUpID: "t2", TeamID: "acme", AmountNanoUSD: 500 * money.Credit, Unsure: true, LookOnly: true, FirstSentAt: d.clock.Now()}
	if got := d.client.Buy(t.Context(), second); got.InvoiceID != first.InvoiceID {
		t.Errorf("without knowing of the first: %+v, want its invoice", got)
	}
	second.Counted = []string{"in_other", first.InvoiceID}
	if got := d.client.Buy(t.Context(), second); got.Outcome != relay.Unsure {
		t.Errorf("the second: %+v, want that nobody knows", got)
	}
	second.LookOnly = false
	if got := d.client.Buy(t.Context(), second); got.Outcome != relay.Paid || got.InvoiceID == first.InvoiceID {
		t.Errorf("the second, asked for again: %+v, want paid with an invoice of its own", got)
	}
}

func TestMistake19AmountsAreExactToTheLastMicroCredit(t *testing.T) {
	t.Parallel()
	var value json.Number
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body Track
		d := json.NewDecoder(r.Body)
		d.UseNumber()
		if err := d.Decode(&body); err != nil {
			t.Error(err)
		}
		value = body.Value
	}))
	for nano, want := range map[money.NanoUSD]string{10: "0.000001", 90_071_992_547_409_910: "9007199254.740991", 3 * money.Credit: "3"} {
		big := charge
		big.AmountNanoUSD = nano
		c.Post(t.Context(), big)
		if value.String() != want || strings.ContainsAny(value.String(), "eE") {
			t.Errorf("%d nano-dollars were sent as %s, want %s", nano, value, want)
		}
	}
}
