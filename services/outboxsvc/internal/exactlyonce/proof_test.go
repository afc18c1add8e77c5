package exactlyonce

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

func number(t *testing.T, name string, def uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestEveryChargeIsAppliedOnce runs seeded plans of faults. Whatever happens, what
// Autumn took from a team is what it was charged, and no charge was taken twice.
// Where a fault may break that, a reconciliation must say so.
func TestEveryChargeIsAppliedOnce(t *testing.T) {
	t.Parallel()
	first := number(t, "EXACTLY_ONCE_FIRST", 0)
	for seed := first; seed < first+number(t, "EXACTLY_ONCE_SEEDS", 10); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, newPlan(seed))
			w.live(t)
			w.settle(t)
			w.check(t)
		})
	}
}

// TestARequestThatOutlivesItsKeyIsFound holds requests for longer than anybody
// remembers their charges, so that some are applied twice. That nothing prevents,
// in neither way of deduping; that it is found is asked of each seed.
func TestARequestThatOutlivesItsKeyIsFound(t *testing.T) {
	t.Parallel()
	for _, lock := range []bool{true, false} {
		t.Run(fmt.Sprint("lock ", lock), func(t *testing.T) {
			t.Parallel()
			twice, named := 0, 0
			for seed := range uint64(4) {
				p := plan{seed: seed, lock: lock, breaks: true, replicas: 1, teams: 3, charges: 8}
				p.rules = []autumn.Fault{{
					Path: "/v1/track", Fault: autumn.FaultArrivesLate, Probability: 0.5, Seed: seed,
					DelayMS: int((p.held() + time.Duration(seed+1)*time.Hour).Milliseconds()),
				}}
				w := newWorld(t, p)
				w.live(t)
				w.settle(t)
				twice += w.check(t)
				for _, f := range w.book.Findings {
					if f.Class == "double_charge" {
						named++
					}
				}
			}
			if twice == 0 || named == 0 {
				t.Errorf("%d teams were charged twice, %d findings call it so: the test shows nothing", twice, named)
			}
		})
	}
}

// check compares the books with the oracle, and returns how many teams are wrong.
func (w *world) check(t *testing.T) int {
	t.Helper()
	wrong := map[string][]string{} // by team
	lost := map[string]int64{}     // in 1e-10 credits, by team
	for _, c := range w.book.Charges() {
		calls, sum := w.applied(c)
		want := c.AmountNanoUSD - c.Shortfall
		lost[c.TeamID] += off(int64(sum), int64(want)*1000)
		switch {
		case c.State != relaytest.Posted && c.State != relaytest.Short:
			t.Errorf("charge %s is %s after %d attempts: %s", c.ChargeID, c.State, c.Attempts, c.LastError)
		case c.Proof == "":
			t.Errorf("charge %s is settled without a proof", c.ChargeID)
		case calls > 1:
			wrong[c.TeamID] = append(wrong[c.TeamID], fmt.Sprintf("%s was applied %d times (proof %s): %s", c.ChargeID, calls, c.Proof, strings.Join(w.history[c.ChargeID], "; ")))
		case off(int64(sum), int64(want)*1000) > 10_000: // a micro-credit, in 1e-10 credits
			wrong[c.TeamID] = append(wrong[c.TeamID], fmt.Sprintf("%s: %s credits applied, want %s (proof %s): %s", c.ChargeID, sum, want.Credits(), c.Proof, strings.Join(w.history[c.ChargeID], "; ")))
		}
	}
	for team, list := range wrong {
		if !w.breaks || !w.found(team) && lost[team] > hidden {
			t.Errorf("team %s of %+v: %v; found: %t", team, w.plan, list, w.found(team))
		}
	}
	t.Logf("%d charges, lock %t, breaking %t, down %q: %d teams wrong, %d charges and %d drifts by hand", w.added, w.lock, w.breaks, w.down, len(wrong), w.hands, w.accepted)
	return len(wrong)
}

// hidden is what Autumn's arithmetic, doubles with 14 digits, can hide of a
// drift: 10 micro-credits, in 1e-10 credits. Billing takes less as rounding.
const hidden = 100_000

func off(a, b int64) int64 { return max(a-b, b-a) }

// found says whether a reconciliation told of a drift that it could not explain.
func (w *world) found(team string) bool {
	for _, f := range w.book.Findings {
		if f.TeamID == team && !f.Fixed {
			return true
		}
	}
	return false
}
