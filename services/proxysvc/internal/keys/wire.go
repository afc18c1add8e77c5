package keys

import (
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func fromWire(r *keysv1.VerifyKeyResponse) *proxy.Key {
	k, team := r.GetKey(), r.GetTeam()
	out := &proxy.Key{
		KeyID: k.GetKeyId(), Token: k.GetToken(), TeamID: k.GetTeamId(), UserID: k.GetUserId(),
		Models: k.GetModels(), TeamModels: team.GetModels(),
		Limits: limits(k.GetLimits()), TeamLimits: limits(team.GetLimits()),
		Tags: k.GetTags(), Revision: r.GetRevision(),
	}
	if k.GetExpiresAt() != nil {
		out.ExpiresAt = k.GetExpiresAt().AsTime()
	}
	if team != nil {
		out.Gate = proxy.Gate{Status: "blocked", Reason: team.GetStatusReason()}
		if known, ok := gates[team.GetStatus()]; ok {
			out.Gate.Status = known
		}
	}
	return out
}

// gates name the team's status as the domain does. Any other one, such as one of
// a newer version, is "blocked": a gate is never open by mistake.
var gates = map[keysv1.TeamStatus]string{
	keysv1.TeamStatus_TEAM_STATUS_ACTIVE:    "active",
	keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED: "exhausted",
	keysv1.TeamStatus_TEAM_STATUS_SUSPENDED: "suspended",
}

func limits(l *keysv1.Limits) ledger.Limits {
	var out ledger.Limits
	if l != nil && l.MaxBudgetNanoUsd != nil {
		n := money.NanoUSD(l.GetMaxBudgetNanoUsd())
		out.MaxBudgetNanoUSD = &n
	}
	if l != nil && l.MaxParallelRequests != nil {
		n := l.GetMaxParallelRequests()
		out.MaxParallelRequests = &n
	}
	return out
}
