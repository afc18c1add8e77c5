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
}

// Audit is what the books say of themselves.
type Audit struct {
	Teams              []TeamSums
	Quarantined        int64
	QuarantinedNanoUSD money.NanoUSD
	// Faults are sentences; none: all sums agree.
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
