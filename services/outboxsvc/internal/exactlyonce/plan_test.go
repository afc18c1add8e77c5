package exactlyonce

import (
	"math/rand/v2"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// plan is what a seed decides.
type plan struct {
	seed     uint64
	lock     bool // the dedupe device
	breaks   bool // with faults that may break the sums
	rules    []autumn.Fault
	down     string // what Autumn is like while it is away; empty: it is never
	replicas int
	kills    float64 // probability that a worker dies at a step of an attempt
	teams    int
	charges  int // of a team
}

func newPlan(seed uint64) plan {
	rnd := rand.New(rand.NewPCG(seed, 7))
	p := plan{
		seed: seed, lock: seed%3 != 2, breaks: seed%4 == 3, replicas: 1 + rnd.IntN(2), kills: []float64{0, 0.02, 0.1}[rnd.IntN(3)],
		teams: 2 + rnd.IntN(3), charges: 4 + rnd.IntN(8),
	}
	if rnd.IntN(2) == 0 {
		p.down = autumn.Down(rnd)
	}
	p.rules = autumn.Mix{Seed: seed, Breaks: p.breaks, Spread: 0.15, Stall: 2 * patience, Stalls: 0.02, Late: p.held()}.Faults(rnd)
	// Reads suffer too.
	p.rules = append(p.rules,
		autumn.Fault{Path: "/v1/events/list", Fault: autumn.FaultDropBeforeApply, Probability: 0.2, Seed: seed},
		autumn.Fault{Fault: autumn.FaultHTML502, Probability: 0.02, Seed: seed + 1})
	return p
}

// held is how long a request is on its way at least that is taken for one of its
// own: a lock lives for 24 hours, and of what is verified the outbox believes after
// ten minutes that nothing of it is under way.
func (p plan) held() time.Duration {
	if p.lock {
		return 24 * time.Hour
	}
	return 10 * time.Minute
}
