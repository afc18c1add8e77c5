package autumn

import (
	"math/rand/v2"
	"slices"
	"time"
)

// survivable are the faults of tracks through which a sender's sums must hold.
var survivable = []string{
	FaultDropBeforeApply, FaultDropAfterApply, FaultClaimThenDie, FaultError500AfterApply,
	FaultError503, FaultError503AfterApply, FaultRateLimited, FaultSlowApply,
	FaultAccepted202Lost, FaultAccepted202Late, FaultQueuedTwice, FaultHTML502,
	FaultTruncatedBody, FaultNoBalance, FaultReleaseLost, FaultFeatureRenamed, FaultClockBehind,
	FaultVersionDrift, FaultEventLost, FaultReset, FaultHalfOpen, FaultSlowBody,
	FaultCycleReset, FaultCustomerDeleted, FaultPartial, FaultArrivesLate,
	FaultNotJSON, FaultPlanChange,
}

// breaking are those that may break the sums, and must then be found. Of them,
// arrives_late is so late that nothing remembers the charge any more.
var breaking = []string{
	FaultKeyStoreDown, FaultKeyLifeCut, FaultReceiptsCut, FaultMemoryLoss, FaultFalseLock, FaultArrivesLate,
}

// downs are the ways in which the server is away for days.
var downs = []string{FaultDropBeforeApply, FaultHTML502, FaultError503, FaultDropAfterApply, FaultError500AfterApply}

// Down is one of the faults that all requests have while the server is away.
func Down(rnd *rand.Rand) string { return downs[rnd.IntN(len(downs))] }

// Mix makes faults of tracks by chance, for tests of a sender.
type Mix struct {
	Seed uint64
	// Breaks has faults with it that may break the sums.
	Breaks bool
	// Spread is how much more probable than 0.03 a fault is at most.
	Spread float64
	// Stall and Stalls are how long the faults hold a request up that take real time,
	// and how probable they are.
	Stall  time.Duration
	Stalls float64
	// Late is how long an arrives_late that breaks the sums is on its way at least.
	Late time.Duration
}

// Faults are the same for the same state of rnd.
func (m Mix) Faults(rnd *rand.Rand) []Fault {
	names := survivable
	if m.Breaks {
		names = slices.Concat(breaking, survivable[:8])
	}
	var rules []Fault
	for i, name := range names {
		if rnd.IntN(2) == 0 {
			rules = append(rules, m.fault(rnd, name, m.Seed*100+uint64(i)))
		}
	}
	if slices.ContainsFunc(rules, func(f Fault) bool { return f.Fault == FaultEventLost }) {
		// How much of a charge was applied is only known from its event when the
		// answer was lost; without either, a part looks like the whole and is left
		// to reconciliation.
		rules = slices.DeleteFunc(rules, func(f Fault) bool { return f.Fault == FaultPartial })
	}
	return rules
}

// fault makes one of tracks. Those that change a customer are rare.
func (m Mix) fault(rnd *rand.Rand, name string, seed uint64) Fault {
	f := Fault{Path: "/v1/track", Fault: name, Probability: 0.03 + m.Spread*rnd.Float64(), Seed: seed, RetryAfterS: 1 + rnd.IntN(60)}
	switch name {
	case FaultSlowApply, FaultHalfOpen, FaultSlowBody:
		f.DelayMS, f.Probability = int(m.Stall.Milliseconds()), m.Stalls
	case FaultAccepted202Late, FaultQueuedTwice, FaultArrivesLate:
		f.DelayMS = 1000 * (1 + rnd.IntN(300))
		if m.Breaks && name == FaultArrivesLate {
			f.DelayMS = int(m.Late.Milliseconds()) + 1000*rnd.IntN(6*3600)
		}
	case FaultKeyLifeCut, FaultReceiptsCut:
		f.DelayMS = 1000 * (1 + rnd.IntN(10))
	case FaultMemoryLoss:
		f.DelayMS, f.Probability = 1000*(1+rnd.IntN(600)), 0.03
	case FaultCycleReset, FaultPlanChange, FaultCustomerDeleted, FaultPartial:
		f.Probability = 0.02
	case FaultClockBehind:
		f.DelayMS = 60_000
	}
	return f
}
