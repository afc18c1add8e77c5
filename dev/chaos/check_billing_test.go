package chaos

import (
	"math/big"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// billing checks that, team by team, what the ledger spent is a third of what
// was billed, and that this is what was charged, posted and applied.
func (v *verdict) billing(ledger *proxyv1.AuditSpendResponse, books *billingv1.AuditBillingResponse) {
	spent := map[string]int64{}
	for _, team := range ledger.GetTeams() {
		spent[team.GetTeamId()] = team.GetCostNanoUsd()
	}
	applied := v.s.autumn.Applied()
	for _, team := range books.GetTeams() {
		id, billed := team.GetTeamId(), big.NewInt(team.GetBilledNanoUsd())
		if team.GetCostNanoUsd() != spent[id] || billed.Cmp(new(big.Int).Mul(big.NewInt(3), big.NewInt(spent[id]))) != 0 {
			v.fault("team %s spent %d nano-dollars, its events say %d and bill %s", id, spent[id], team.GetCostNanoUsd(), billed)
		}
		if team.GetChargedNanoUsd()+team.GetCarriedNanoUsd() != team.GetBilledNanoUsd() || team.GetPostedNanoUsd() != team.GetChargedNanoUsd() {
			v.fault("team %s: billed %s, charged %d, carried %d, posted %d", id, billed, team.GetChargedNanoUsd(), team.GetCarriedNanoUsd(), team.GetPostedNanoUsd())
		}
		// Autumn counts in 1e-10 credits: a thousand to the nano-dollar.
		if got := int64(applied[id].Credits); got != team.GetPostedNanoUsd()*1000 {
			v.fault("team %s was charged %d nano-dollars, Autumn applied %d e-10 credits", id, team.GetPostedNanoUsd(), got)
		}
		delete(spent, id)
	}
	for id, cost := range spent {
		if cost != 0 {
			v.fault("team %s spent %d nano-dollars and was never billed", id, cost)
		}
	}
	if books.GetQuarantined() != 0 {
		v.fault("%d rows are in quarantine", books.GetQuarantined())
	}
}
