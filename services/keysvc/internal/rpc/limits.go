package rpc

import (
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func limitsFrom(l *keysv1.Limits) key.Limits {
	if l == nil {
		return key.Limits{}
	}
	out := key.Limits{
		MaxBudgetNanoUSD: amountFrom(l.MaxBudgetNanoUsd),
		RPMLimit:         l.RpmLimit, TPMLimit: l.TpmLimit, MaxParallelRequests: l.MaxParallelRequests,
		BudgetDuration: l.GetBudgetDuration(),
		Finer: key.Finer{
			SoftBudgetNanoUSD: amountFrom(l.SoftBudgetNanoUsd),
			ModelRPMLimit:     nonEmpty(l.GetModelRpmLimit()), ModelTPMLimit: nonEmpty(l.GetModelTpmLimit()),
			TempBudgetIncreaseNanoUSD: amountFrom(l.TempBudgetIncreaseNanoUsd),
			BudgetMode:                modeFrom(l.GetBudgetMode()),
		},
	}
	if l.GetTempBudgetExpiresAt() != nil {
		at := timeOf(l.GetTempBudgetExpiresAt())
		out.Finer.TempBudgetExpiresAt = &at
	}
	for _, b := range l.GetBudgetLimits() {
		out.Finer.BudgetLimits = append(out.Finer.BudgetLimits, budgetFrom(b))
	}
	for model, b := range l.GetModelMaxBudget() {
		if out.Finer.ModelMaxBudget == nil {
			out.Finer.ModelMaxBudget = map[string]key.Budget{}
		}
		out.Finer.ModelMaxBudget[model] = budgetFrom(b)
	}
	return out
}

func limitsTo(l key.Limits) *keysv1.Limits {
	out := &keysv1.Limits{
		MaxBudgetNanoUsd: amountTo(l.MaxBudgetNanoUSD),
		RpmLimit:         l.RPMLimit, TpmLimit: l.TPMLimit, MaxParallelRequests: l.MaxParallelRequests,
		BudgetDuration:    l.BudgetDuration,
		SoftBudgetNanoUsd: amountTo(l.Finer.SoftBudgetNanoUSD),
		ModelRpmLimit:     l.Finer.ModelRPMLimit, ModelTpmLimit: l.Finer.ModelTPMLimit,
		TempBudgetIncreaseNanoUsd: amountTo(l.Finer.TempBudgetIncreaseNanoUSD),
		TempBudgetExpiresAt:       instant(l.Finer.TempBudgetExpiresAt),
		BudgetMode:                modeTo(l.Finer.BudgetMode),
	}
	for _, b := range l.Finer.BudgetLimits {
		out.BudgetLimits = append(out.BudgetLimits, budgetTo(b))
	}
	for model, b := range l.Finer.ModelMaxBudget {
		if out.ModelMaxBudget == nil {
			out.ModelMaxBudget = map[string]*keysv1.BudgetLimit{}
		}
		out.ModelMaxBudget[model] = budgetTo(b)
	}
	return out
}

func budgetFrom(b *keysv1.BudgetLimit) key.Budget {
	return key.Budget{MaxBudgetNanoUSD: money.NanoUSD(b.GetMaxBudgetNanoUsd()), BudgetDuration: b.GetBudgetDuration()}
}

func budgetTo(b key.Budget) *keysv1.BudgetLimit {
	return &keysv1.BudgetLimit{MaxBudgetNanoUsd: int64(b.MaxBudgetNanoUSD), BudgetDuration: b.BudgetDuration}
}

func amountFrom(n *int64) *money.NanoUSD {
	if n == nil {
		return nil
	}
	amount := money.NanoUSD(*n)
	return &amount
}

func amountTo(amount *money.NanoUSD) *int64 {
	if amount == nil {
		return nil
	}
	n := int64(*amount)
	return &n
}

// nonEmpty is nil for an empty map, so that what is stored is what is returned.
func nonEmpty(limits map[string]int64) map[string]int64 {
	if len(limits) == 0 {
		return nil
	}
	return limits
}

// modeFrom gives a mode that is not known, such as one of a newer client, a
// name that the domain refuses.
func modeFrom(m keysv1.BudgetMode) key.BudgetMode {
	switch m {
	case keysv1.BudgetMode_BUDGET_MODE_UNSPECIFIED:
		return ""
	case keysv1.BudgetMode_BUDGET_MODE_HARD:
		return key.Hard
	case keysv1.BudgetMode_BUDGET_MODE_SOFT:
		return key.Soft
	}
	return "unknown"
}

func modeTo(m key.BudgetMode) keysv1.BudgetMode {
	switch m {
	case key.Hard:
		return keysv1.BudgetMode_BUDGET_MODE_HARD
	case key.Soft:
		return keysv1.BudgetMode_BUDGET_MODE_SOFT
	}
	return keysv1.BudgetMode_BUDGET_MODE_UNSPECIFIED
}
