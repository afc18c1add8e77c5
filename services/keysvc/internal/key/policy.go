package key

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Policy is what the operator decides about the keys that callers ask for.
type Policy struct {
	// SessionDuration is the life of session keys for which neither the caller
	// nor Defaults say one, in LiteLLM's grammar.
	SessionDuration string
	// Defaults fill what a caller leaves open about a new key.
	Defaults Defaults
	// Bounds are the most that a caller gets: what is left open is filled with
	// them, more is refused.
	Bounds Bounds
}

// Bounds are values for some attributes of a key. Empty and nil: none.
type Bounds struct {
	MaxBudgetNanoUSD                        *money.NanoUSD
	RPMLimit, TPMLimit, MaxParallelRequests *int64
	Duration, BudgetDuration                string
}

// Defaults are values for attributes that a caller leaves open.
type Defaults struct {
	Bounds
	Models []string
	Tags   []string
}

// Validate refuses values that no key could have.
func (p Policy) Validate() error {
	for _, b := range []Bounds{p.Bounds, p.Defaults.Bounds, {Duration: p.SessionDuration}} {
		if err := b.validate(); err != nil {
			return err
		}
	}
	models, tags := p.Defaults.Models, p.Defaults.Tags
	for _, err := range []error{checkList("models", models, mostModels), checkList("tags", tags, mostTags)} {
		if err != nil {
			return err
		}
	}
	_, err := p.complete(Attributes{}, true)
	return err
}

func (b Bounds) validate() error {
	l := Limits{
		MaxBudgetNanoUSD: b.MaxBudgetNanoUSD, RPMLimit: b.RPMLimit, TPMLimit: b.TPMLimit,
		MaxParallelRequests: b.MaxParallelRequests, BudgetDuration: b.BudgetDuration,
	}
	if err := l.validate(); err != nil {
		return err
	}
	return checkWindow("duration", b.Duration)
}

// complete fills what a caller left open about a new key, and refuses what is
// over a bound.
func (p Policy) complete(a Attributes, session bool) (Attributes, error) {
	d := p.Defaults
	a.Limits.MaxBudgetNanoUSD = or(a.Limits.MaxBudgetNanoUSD, d.MaxBudgetNanoUSD)
	a.Limits.RPMLimit = or(a.Limits.RPMLimit, d.RPMLimit)
	a.Limits.TPMLimit = or(a.Limits.TPMLimit, d.TPMLimit)
	a.Limits.MaxParallelRequests = or(a.Limits.MaxParallelRequests, d.MaxParallelRequests)
	a.Limits.BudgetDuration = orText(a.Limits.BudgetDuration, d.BudgetDuration)
	a.Duration = orText(a.Duration, d.Duration)
	if session {
		a.Duration = orText(a.Duration, p.SessionDuration)
	}
	if len(a.Models) == 0 {
		a.Models = d.Models
	}
	if len(a.Tags) == 0 {
		a.Tags = d.Tags
	}
	a.Duration = orText(a.Duration, p.Bounds.Duration)
	a.Limits = p.Bounds.fill(a.Limits)
	if err := p.Bounds.checkDuration(a.Duration); err != nil {
		return a, err
	}
	return a, p.Bounds.check(a.Limits)
}

// fill sets what is left open to the bound.
func (b Bounds) fill(l Limits) Limits {
	l.MaxBudgetNanoUSD = or(l.MaxBudgetNanoUSD, b.MaxBudgetNanoUSD)
	l.RPMLimit = or(l.RPMLimit, b.RPMLimit)
	l.TPMLimit = or(l.TPMLimit, b.TPMLimit)
	l.MaxParallelRequests = or(l.MaxParallelRequests, b.MaxParallelRequests)
	l.BudgetDuration = orText(l.BudgetDuration, b.BudgetDuration)
	return l
}

// check refuses limits over a bound. A temporary increase is part of the
// budget.
func (b Bounds) check(l Limits) error {
	for _, n := range []struct {
		name         string
		value, bound *int64
	}{
		{"rpm_limit", l.RPMLimit, b.RPMLimit},
		{"tpm_limit", l.TPMLimit, b.TPMLimit},
		{"max_parallel_requests", l.MaxParallelRequests, b.MaxParallelRequests},
	} {
		if n.value != nil && n.bound != nil && *n.value > *n.bound {
			return errOver(n.name, *n.value, *n.bound)
		}
	}
	if bound := b.MaxBudgetNanoUSD; bound != nil && l.MaxBudgetNanoUSD != nil {
		budget, more := *l.MaxBudgetNanoUSD, l.Finer.TempBudgetIncreaseNanoUSD
		if budget > *bound {
			return errOver("max_budget", budget, *bound)
		}
		if more != nil && *more > *bound-budget {
			return errOver("temp_budget_increase", *more, *bound-budget)
		}
	}
	return checkOver("budget_duration", l.BudgetDuration, b.BudgetDuration)
}

// checkDuration refuses a life that is longer than the bound.
func (b Bounds) checkDuration(duration string) error {
	if duration == Forever && b.Duration != "" {
		return errOver("duration", duration, b.Duration)
	}
	return checkOver("duration", duration, b.Duration)
}

// checkOver refuses a duration that is longer than the bound.
func checkOver(name, value, bound string) error {
	if Longer(value, bound) {
		return errOver(name, value, bound)
	}
	return nil
}

// Longer compares two durations, of which an empty or a wrong one is neither
// longer nor shorter than any. Both are counted from one instant: a month has no
// length of its own.
func Longer(duration, than string) bool {
	d, errD := ParseDuration(duration)
	other, errOther := ParseDuration(than)
	if errD != nil || errOther != nil {
		return false
	}
	from := time.Unix(0, 0)
	end, errD := d.After(from)
	last, errOther := other.After(from)
	return errOther == nil && (errD != nil || end.After(last))
}

// errOver speaks LiteLLM's words.
func errOver(name string, value, bound any) error {
	return fault.Errorf(fault.Invalid, "%s is over max limit set in config - user_value=%v; max_value=%v", name, value, bound)
}

func or[T any](value, otherwise *T) *T {
	if value == nil {
		return otherwise
	}
	return value
}

func orText(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
