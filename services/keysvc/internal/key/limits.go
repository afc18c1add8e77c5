package key

import (
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Limits bound what a key or a team may use. Nil: no limit. Zero: nothing.
type Limits struct {
	MaxBudgetNanoUSD    *money.NanoUSD `json:"max_budget_nano_usd"`
	RPMLimit            *int64         `json:"rpm_limit"` // requests a minute
	TPMLimit            *int64         `json:"tpm_limit"` // tokens a minute
	MaxParallelRequests *int64         `json:"max_parallel_requests"`
	// BudgetDuration is the window after which the spent budget starts again,
	// in LiteLLM's grammar. Empty: never.
	BudgetDuration string `json:"budget_duration"`
}

func (l Limits) validate() error {
	if b := l.MaxBudgetNanoUSD; b != nil && *b < 0 {
		return fault.Errorf(fault.Invalid, "max_budget cannot be negative. Received: %s", *b)
	}
	for _, n := range []struct {
		name  string
		limit *int64
	}{
		{"rpm_limit", l.RPMLimit}, {"tpm_limit", l.TPMLimit}, {"max_parallel_requests", l.MaxParallelRequests},
	} {
		if n.limit != nil && *n.limit < 0 {
			return fault.Errorf(fault.Invalid, "%s cannot be negative. Received: %d", n.name, *n.limit)
		}
	}
	if l.BudgetDuration == "" {
		return nil
	}
	_, err := ParseDuration(l.BudgetDuration)
	return err
}
