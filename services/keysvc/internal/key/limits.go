package key

import (
	"fmt"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Limits bound what a key or a team may use. Nil: no limit. Zero: nothing. They
// are kept and told here; the proxy enforces them.
type Limits struct {
	MaxBudgetNanoUSD    *money.NanoUSD `json:"max_budget_nano_usd"`
	RPMLimit            *int64         `json:"rpm_limit"` // requests a minute
	TPMLimit            *int64         `json:"tpm_limit"` // tokens a minute
	MaxParallelRequests *int64         `json:"max_parallel_requests"`
	// BudgetDuration is the window after which the spent budget starts again,
	// in LiteLLM's grammar. Empty: never.
	BudgetDuration string `json:"budget_duration"`
	Finer          Finer  `json:"finer"`
}

// Finer are the limits that few keys have.
type Finer struct {
	// BudgetLimits are further budgets, all of which hold at once.
	BudgetLimits []Budget `json:"budget_limits,omitempty"`
	// SoftBudgetNanoUSD is what an alert is sent at.
	SoftBudgetNanoUSD *money.NanoUSD    `json:"soft_budget_nano_usd,omitempty"`
	ModelMaxBudget    map[string]Budget `json:"model_max_budget,omitempty"`
	ModelRPMLimit     map[string]int64  `json:"model_rpm_limit,omitempty"`
	ModelTPMLimit     map[string]int64  `json:"model_tpm_limit,omitempty"`
	// TempBudgetIncreaseNanoUSD is added to the budget until
	// TempBudgetExpiresAt. Both are set, or neither.
	TempBudgetIncreaseNanoUSD *money.NanoUSD `json:"temp_budget_increase_nano_usd,omitempty"`
	TempBudgetExpiresAt       *time.Time     `json:"temp_budget_expires_at,omitempty"`
	BudgetMode                BudgetMode     `json:"budget_mode,omitempty"`
}

// Budget is what may be spent in a window. An empty window never ends.
type Budget struct {
	MaxBudgetNanoUSD money.NanoUSD `json:"max_budget_nano_usd"`
	BudgetDuration   string        `json:"budget_duration,omitempty"`
}

// BudgetMode says when a request is too much for a budget.
type BudgetMode string

// The modes. The empty one leaves it to the proxy.
const (
	Hard BudgetMode = "hard" // its worst case must fit
	Soft BudgetMode = "soft" // something must be left
)

const (
	mostBudgets     = 10
	mostModelLimits = 100
)

func (l Limits) validate() error {
	for _, err := range []error{
		checkBudget("max_budget", l.MaxBudgetNanoUSD),
		checkLimit("rpm_limit", l.RPMLimit),
		checkLimit("tpm_limit", l.TPMLimit),
		checkLimit("max_parallel_requests", l.MaxParallelRequests),
		checkWindow("budget_duration", l.BudgetDuration),
		checkBudget("soft_budget", l.Finer.SoftBudgetNanoUSD),
		l.Finer.checkWindows(),
		l.Finer.checkModels(),
		l.Finer.checkTemporary(),
	} {
		if err != nil {
			return err
		}
	}
	switch l.Finer.BudgetMode {
	case "", Hard, Soft:
		return nil
	}
	return fault.Errorf(fault.Invalid, "budget_mode is not one that is known: hard or soft")
}

// checkBudget speaks LiteLLM's words.
func checkBudget(name string, b *money.NanoUSD) error {
	if b != nil && *b < 0 {
		return fault.Errorf(fault.Invalid, "%s cannot be negative. Received: %s", name, *b)
	}
	return nil
}

func checkLimit(name string, n *int64) error {
	if n != nil && *n < 0 {
		return fault.Errorf(fault.Invalid, "%s cannot be negative. Received: %d", name, *n)
	}
	return nil
}

// checkWindow refuses a window in which nothing fits.
func checkWindow(name, text string) error {
	if text == "" {
		return nil
	}
	d, err := ParseDuration(text)
	if err == nil {
		_, err = d.After(time.Unix(0, 0))
	}
	switch {
	case err != nil:
		return fault.Errorf(fault.Invalid, "%s: %s", name, fault.Text(err))
	case d == Duration{}:
		return fault.Errorf(fault.Invalid, "%s: %q is no window: it ends when it begins", name, text)
	}
	return nil
}

func (f Finer) checkWindows() error {
	if len(f.BudgetLimits) > mostBudgets {
		return fault.Errorf(fault.Invalid, "budget_limits has at most %d entries", mostBudgets)
	}
	seen := map[Duration]bool{}
	for i, b := range f.BudgetLimits {
		name := "budget_limits[" + strconv.Itoa(i) + "]"
		if err := b.validate(name); err != nil {
			return err
		}
		window, _ := ParseDuration(b.BudgetDuration) // an empty one, the only wrong one left, is a window too
		if seen[window] {
			return fault.Errorf(fault.Invalid, "%s.budget_duration: there is another budget with the window %q", name, b.BudgetDuration)
		}
		seen[window] = true
	}
	return nil
}

func (b Budget) validate(name string) error {
	if err := checkBudget(name+".max_budget", &b.MaxBudgetNanoUSD); err != nil {
		return err
	}
	return checkWindow(name+".budget_duration", b.BudgetDuration)
}

func (f Finer) checkModels() error {
	for _, m := range []struct {
		name   string
		limits map[string]int64
	}{
		{"model_rpm_limit", f.ModelRPMLimit}, {"model_tpm_limit", f.ModelTPMLimit},
	} {
		if err := checkModelLimits(m.name, m.limits, func(name string, n int64) error { return checkLimit(name, &n) }); err != nil {
			return err
		}
	}
	return checkModelLimits("model_max_budget", f.ModelMaxBudget, func(name string, b Budget) error { return b.validate(name) })
}

func checkModelLimits[T any](name string, limits map[string]T, check func(name string, limit T) error) error {
	if len(limits) > mostModelLimits {
		return fault.Errorf(fault.Invalid, "%s has at most %d entries", name, mostModelLimits)
	}
	for model, limit := range limits {
		if err := needText("a model in "+name, model, longestName); err != nil {
			return err
		}
		if err := check(fmt.Sprintf("%s[%q]", name, model), limit); err != nil {
			return err
		}
	}
	return nil
}

func (f Finer) checkTemporary() error {
	if (f.TempBudgetIncreaseNanoUSD == nil) != (f.TempBudgetExpiresAt == nil) {
		return fault.Errorf(fault.Invalid, "temp_budget_increase and temp_budget_expires_at are given both, or neither")
	}
	return checkBudget("temp_budget_increase", f.TempBudgetIncreaseNanoUSD)
}

// set copies the limit that the name stands for, which is that of a mask below
// "limits"; it returns false for a name that is not known.
func (l *Limits) set(name string, from Limits) bool {
	switch name {
	case "max_budget_nano_usd":
		l.MaxBudgetNanoUSD = from.MaxBudgetNanoUSD
	case "rpm_limit":
		l.RPMLimit = from.RPMLimit
	case "tpm_limit":
		l.TPMLimit = from.TPMLimit
	case "max_parallel_requests":
		l.MaxParallelRequests = from.MaxParallelRequests
	case "budget_duration":
		l.BudgetDuration = from.BudgetDuration
	case "budget_limits":
		l.Finer.BudgetLimits = from.Finer.BudgetLimits
	case "soft_budget_nano_usd":
		l.Finer.SoftBudgetNanoUSD = from.Finer.SoftBudgetNanoUSD
	case "model_max_budget":
		l.Finer.ModelMaxBudget = from.Finer.ModelMaxBudget
	case "model_rpm_limit":
		l.Finer.ModelRPMLimit = from.Finer.ModelRPMLimit
	case "model_tpm_limit":
		l.Finer.ModelTPMLimit = from.Finer.ModelTPMLimit
	case "temp_budget_increase_nano_usd":
		l.Finer.TempBudgetIncreaseNanoUSD = from.Finer.TempBudgetIncreaseNanoUSD
	case "temp_budget_expires_at":
		l.Finer.TempBudgetExpiresAt = from.Finer.TempBudgetExpiresAt
	case "budget_mode":
		l.Finer.BudgetMode = from.Finer.BudgetMode
	default:
		return false
	}
	return true
}
