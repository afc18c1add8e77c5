package stripe

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
	sim "github.com/proliferate-ai/llm-proxy/sim/stripe"
)

const testKey = "sk_test_0123456789"

type stand struct {
	*Client
	sim   *sim.Server
	clock *relaytest.Clock
}

func newStand(t *testing.T, opts sim.Options, change ...func(*Options)) *stand {
	t.Helper()
	s := &stand{clock: relaytest.NewClock()}
	opts.SecretKey, opts.Now, opts.PerSecond = testKey, s.clock.Now, 1000
	s.sim = sim.New(opts)
	srv := httptest.NewServer(s.sim)
	t.Cleanup(srv.Close)
	opt := Options{
		URL: srv.URL + "/v1/", Key: secret.New(testKey), EventName: "llm_micro_credits", InstallationID: strings.Repeat("i", 100),
		Concurrency: 4, Timeout: 5 * time.Second, Now: s.clock.Now,
	}
	for _, c := range change {
		c(&opt)
	}
	s.Client = New(opt)
	return s
}

func TestChargesAreMeteredOnceThroughAllFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		s := newStand(t, sim.Options{SearchLag: time.Minute})
		var rules []sim.Fault
		for i, name := range []string{sim.FaultDropBeforeApply, sim.FaultDropAfterApply, sim.FaultError500AfterApply, sim.FaultRateLimited, sim.FaultHTML502} {
			rules = append(rules, sim.Fault{Fault: name, Probability: 0.15, Seed: seed*10 + uint64(i)})
		}
		if err := s.sim.SetFaults(rules...); err != nil {
			t.Fatal(err)
		}
		book := relaytest.New(s.clock.Now)
		want := map[string]int64{}
		for i := range int64(12) {
			team := fmt.Sprint("team", i%3)
			book.Add(fmt.Sprint("c", i), team, i/3+1, money.NanoUSD(i+1)*10)
			want[team] += i + 1
		}
		svc := relay.New(book, s, relay.Options{Concurrency: 4, Now: s.clock.Now})
		for range 200 {
			_, _ = svc.Deliver(t.Context())
			s.clock.Advance(2 * time.Minute)
		}
		for _, c := range book.Charges() {
			if c.State != relaytest.Posted {
				t.Errorf("seed %d: charge %s is %s (%s)", seed, c.ChargeID, c.State, c.LastError)
			}
		}
		got := s.sim.Applied()
		for team, sum := range want {
			if a := got[s.sim.CustomerOf(team)]; a.Value != sum || a.Events != 4 {
				t.Errorf("seed %d: %s was metered %+v, want %d in 4 events", seed, team, a, sum)
			}
		}
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	t.Parallel()
	s := newStand(t, sim.Options{})
	c := relay.Charge{ChargeID: "c1", TeamID: "acme", AmountNanoUSD: money.Credit, FrozenAt: s.clock.Now().Add(-100 * 24 * time.Hour)}
	if v := relay.Classify(c, s.Post(t.Context(), c), relay.Collapsing); v.Do != relay.CreateCustomer {
		t.Errorf("without a customer: %+v", v)
	}
	if err := s.CreateCustomer(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if v := relay.Classify(c, s.Post(t.Context(), c), relay.Collapsing); v.Outcome != relay.Applied {
		t.Errorf("an event older than 35 days: %+v, want it metered today", v)
	}
	if v := relay.Classify(c, s.Post(t.Context(), c), relay.Collapsing); v.Outcome != relay.Unknown || v.Do != relay.Verify {
		t.Errorf("a duplicate of an attempt that was never sent: %+v, want no proof", v)
	}
	c.Unsure = true
	if v := relay.Classify(c, s.Post(t.Context(), c), relay.Collapsing); v.Outcome != relay.Applied || v.Proof != relay.ProofLock {
		t.Errorf("a duplicate of an attempt in doubt: %+v, want it applied", v)
	}
	if got := s.sim.Applied()[s.sim.CustomerOf("acme")]; got.Value != 1_000_000 || got.Events != 1 {
		t.Errorf("metered %+v, want a million micro-credits once", got)
	}
}

func TestReadyFindsTheMeter(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		opts   sim.Options
		change func(*Options)
		says   string // empty: ready
	}{
		{"the right one", sim.Options{}, func(*Options) {}, ""},
		{"another name", sim.Options{EventName: "x"}, func(*Options) {}, "no active meter"},
		{"another mode", sim.Options{}, func(o *Options) { o.Livemode = true }, "wrong mode"},
		{"a meter that counts", sim.Options{Formula: "count"}, func(*Options) {}, "does not sum up"},
		{"a wrong key", sim.Options{}, func(o *Options) { o.Key = secret.New("sk_test_wrong") }, "refuses STRIPE_API_KEY"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := newStand(t, row.opts, row.change).Ready(t.Context())
			switch {
			case row.says == "" && err != nil:
				t.Errorf("Ready = %v", err)
			case row.says != "" && (fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), row.says)):
				t.Errorf("Ready = %v, want a Precondition with %q", err, row.says)
			}
		})
	}
}
