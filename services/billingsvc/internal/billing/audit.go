package billing

import (
	"context"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// TeamSums are a team's sums, each taken from the rows that it stands for.
type TeamSums struct {
	TeamID         string
	Events         int64
	CostNanoUSD    money.NanoUSD
	BilledNanoUSD  money.NanoUSD
	ChargedNanoUSD money.NanoUSD
	PostedNanoUSD  money.NanoUSD
	CarriedNanoUSD money.NanoUSD // billed − charged
	// Of what was charged and is not posted: what the sink did not take of
	// charges that are settled, charges that it refused for good, and charges
	// that may be applied. The rest waits.
	ShortNanoUSD, DeadNanoUSD, DoubtfulNanoUSD money.NanoUSD
}

// TeamRead is what billing has read of the ledger: the cost of a team's rows as
// they are there, whether they became events, wait in quarantine, or were billed
// from there to another team or at another cost.
type TeamRead struct {
	TeamID      string // empty: rows without a team
	CostNanoUSD money.NanoUSD
}

// Audit is what the books say of themselves.
type Audit struct {
	Teams              []TeamSums
	Read               []TeamRead
	Quarantined        int64
	QuarantinedNanoUSD money.NanoUSD
	// Faults are sentences, a hundred of a kind and then how many more there
	// are; none: all sums agree.
	Faults []string
	// Checked are the events that were looked at; Trusted those that earlier
	// audits had found right.
	Checked, Trusted int64
}

// Audit checks events, charges, balances and cursors against each other: what
// came since the last audit found everything right, or, if full, everything.
func (s *Service) Audit(ctx context.Context, full bool) (Audit, error) {
	return s.store.Audit(ctx, full)
}
