package keys

import (
	"net/netip"
	"strings"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func (s Settings) fromWire(r *keysv1.VerifyKeyResponse) *proxy.Key {
	k, team := r.GetKey(), r.GetTeam()
	out := &proxy.Key{
		Models: k.GetModels(), TeamModels: team.GetModels(),
		Limits: s.limits(k.GetLimits()), TeamLimits: s.limits(team.GetLimits()),
		ModelLimits: s.modelLimits(k.GetLimits()), TeamModelLimits: s.modelLimits(team.GetLimits()),
		Tags: k.GetTags(), Aliases: k.GetAliases(), Revision: r.GetRevision(),
	}
	together([]*string{&out.KeyID, &out.Token, &out.TeamID, &out.UserID}, k.GetKeyId(), k.GetToken(), k.GetTeamId(), k.GetUserId())
	if k.GetExpiresAt() != nil {
		out.ExpiresAt = k.GetExpiresAt().AsTime()
	}
	if at := r.GetSecretExpiresAt(); at != nil && (out.ExpiresAt.IsZero() || at.AsTime().Before(out.ExpiresAt)) {
		out.ExpiresAt = at.AsTime() // an old secret of the key, in its grace
	}
	out.Routes = k.GetAllowedRoutes()
	for _, text := range k.GetAllowedCidrs() {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			p = netip.Prefix{} // contains nothing: a rule that cannot be read allows nobody
		}
		out.Networks = append(out.Networks, p)
	}
	if team != nil {
		out.Gate = proxy.Gate{Status: "blocked", Reason: team.GetStatusReason()}
		if known, ok := gates[team.GetStatus()]; ok {
			out.Gate.Status = known
		}
	}
	return out
}

// together copies texts into one: the garbage collector looks at all that is in
// memory, a hundred thousand keys perhaps, and counts what is allocated, not bytes.
func together(to []*string, texts ...string) {
	all := strings.Join(texts, "")
	for i, text := range texts {
		*to[i], all = all[:len(text)], all[len(text):]
	}
}

// gates name the team's status as the domain does. Any other one, such as one of
// a newer version, is "blocked": a gate is never open by mistake.
var gates = map[keysv1.TeamStatus]string{
	keysv1.TeamStatus_TEAM_STATUS_ACTIVE:    "active",
	keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED: "exhausted",
	keysv1.TeamStatus_TEAM_STATUS_SUSPENDED: "suspended",
}

// limits are an account's limits as the ledger decides on them.
func (s Settings) limits(l *keysv1.Limits) ledger.Limits {
	var out ledger.Limits
	if l == nil {
		return out
	}
	out.Soft = s.soft(l)
	if l.SoftBudgetNanoUsd != nil {
		n := money.NanoUSD(l.GetSoftBudgetNanoUsd())
		out.Warn = &n
	}
	out.MaxParallelRequests, out.RPM, out.TPM = l.MaxParallelRequests, l.RpmLimit, l.TpmLimit
	if l.MaxBudgetNanoUsd != nil {
		b := ledger.Budget{Limit: money.NanoUSD(l.GetMaxBudgetNanoUsd()), Window: l.GetBudgetDuration()}
		if l.GetTempBudgetExpiresAt() != nil {
			b.Increase, b.IncreaseUntil = money.NanoUSD(l.GetTempBudgetIncreaseNanoUsd()), l.GetTempBudgetExpiresAt().AsTime()
		}
		out.Budgets = append(out.Budgets, b)
	}
	for _, b := range l.GetBudgetLimits() {
		out.Budgets = append(out.Budgets, budget(b))
	}
	return out
}

// modelLimits are the limits of single models, by their bare names; nil: there are
// none.
func (s Settings) modelLimits(l *keysv1.Limits) map[string]ledger.Limits {
	if len(l.GetModelMaxBudget())+len(l.GetModelRpmLimit())+len(l.GetModelTpmLimit()) == 0 {
		return nil
	}
	out := map[string]ledger.Limits{}
	for model, b := range l.GetModelMaxBudget() {
		of := out[pricing.Bare(model)]
		of.Soft = s.soft(l)
		of.Budgets = append(of.Budgets, budget(b))
		out[pricing.Bare(model)] = of
	}
	for model, n := range l.GetModelRpmLimit() {
		of := out[pricing.Bare(model)]
		of.RPM = &n
		out[pricing.Bare(model)] = of
	}
	for model, n := range l.GetModelTpmLimit() {
		of := out[pricing.Bare(model)]
		of.TPM = &n
		out[pricing.Bare(model)] = of
	}
	return out
}

func budget(b *keysv1.BudgetLimit) ledger.Budget {
	return ledger.Budget{Limit: money.NanoUSD(b.GetMaxBudgetNanoUsd()), Window: b.GetBudgetDuration()}
}

func (s Settings) soft(l *keysv1.Limits) bool {
	if mode := l.GetBudgetMode(); mode != keysv1.BudgetMode_BUDGET_MODE_UNSPECIFIED {
		return mode == keysv1.BudgetMode_BUDGET_MODE_SOFT
	}
	return s.SoftBudgets
}
