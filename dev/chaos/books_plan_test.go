package chaos

import (
	"math/rand/v2"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// booksPlan is what a seed decides of the charges' way to Autumn.
type booksPlan struct {
	seed   uint64
	dedupe string
	breaks bool // with faults that may break the sums
	// switches: a replica that comes back dedupes in one way or the other, by chance.
	switches bool
	rules    []autumn.Fault
	down     string // what Autumn is like for three days
	// sickness is what Autumn answers to each charge of one team, all the time: a 5xx
	// that leaves a doubt, or a 4xx that makes the charge a dead one.
	sickness string
	teams    int
	events   int
	kills    float64       // of a replica, in a pass
	stride   time.Duration // between two passes at most; four times that while it is away
}

// sick is the team that no charge of can be posted.
const sick = "sick"

func newBooksPlan(seed uint64) booksPlan {
	rnd := rand.New(rand.NewPCG(seed, 21))
	p := booksPlan{
		seed: seed, dedupe: "lock", breaks: seed%4 == 3, teams: 2 + rnd.IntN(3), events: 30 + rnd.IntN(30),
		down: autumn.Down(rnd), kills: 0.02 + 0.06*rnd.Float64(), stride: time.Hour,
	}
	p.switches = seed%5 == 1 && !p.breaks
	p.sickness = []string{autumn.FaultHTML502, autumn.FaultFeatureRenamed}[seed%2]
	if seed%3 == 2 {
		p.dedupe = "idempotency_key"
	}
	// A lock lives for 24 hours, and of what is verified the outbox believes after ten
	// minutes that nothing of it is under way.
	held := map[string]time.Duration{"lock": 24 * time.Hour, "idempotency_key": 10 * time.Minute}
	p.rules = autumn.Mix{Seed: seed, Breaks: p.breaks, Spread: 0.1, Stall: 3 * answerIn / 2, Stalls: 0.01, Late: held[p.dedupe]}.Faults(rnd)
	return p
}
