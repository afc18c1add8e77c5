package keysvc

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

const (
	defaultParams = "KEYSVC_DEFAULT_KEY_PARAMS"
	upperParams   = "KEYSVC_UPPERBOUND_KEY_PARAMS"
	keyDuration   = "LLM_PROXY_KEY_DURATION"
)

// policy reads what the operator decides about keys.
func policy(r *env.Reader) key.Policy {
	var p key.Policy
	bounds := params(r, upperParams)
	if len(bounds.Models)+len(bounds.Tags) > 0 {
		r.Fault(upperParams, "models and tags have no upper bound")
	}
	p.Bounds = bounds.bounds(r, upperParams)
	defaults := params(r, defaultParams)
	p.Defaults = key.Defaults{Bounds: defaults.bounds(r, defaultParams), Models: defaults.Models, Tags: defaults.Tags}
	p.SessionDuration = sessionDuration(r, p.Bounds.Duration)
	if err := p.Validate(); err != nil {
		r.Fault(strings.Join([]string{keyDuration, defaultParams, upperParams}, " or "), "%v", err)
	}
	return p
}

// keyParams are LiteLLM's names in its default_key_generate_params and
// upperbound_key_generate_params; money is in USD.
type keyParams struct {
	MaxBudget           *json.Number `json:"max_budget"`
	RPMLimit            *int64       `json:"rpm_limit"`
	TPMLimit            *int64       `json:"tpm_limit"`
	MaxParallelRequests *int64       `json:"max_parallel_requests"`
	Duration            string       `json:"duration"`
	BudgetDuration      string       `json:"budget_duration"`
	Models              []string     `json:"models"`
	Tags                []string     `json:"tags"`
}

// params reads a JSON object; nothing else may be in it.
func params(r *env.Reader, name string) keyParams {
	var p keyParams
	d := json.NewDecoder(strings.NewReader(r.String(name, "{}")))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || d.More() {
		r.Fault(name, `is no JSON object such as {"max_budget": 10, "duration": "7d"}: %v`, err)
		return keyParams{}
	}
	return p
}

func (p keyParams) bounds(r *env.Reader, name string) key.Bounds {
	b := key.Bounds{
		RPMLimit: p.RPMLimit, TPMLimit: p.TPMLimit, MaxParallelRequests: p.MaxParallelRequests,
		Duration: p.Duration, BudgetDuration: p.BudgetDuration,
	}
	if p.MaxBudget != nil {
		n, err := money.ParseUSD(p.MaxBudget.String())
		if err != nil {
			r.Fault(name, "max_budget: %v", err)
		}
		b.MaxBudgetNanoUSD = &n
	}
	return b
}

const defaultKeySeconds = 30 * 24 * 60 * 60

// sessionDuration outlives the sandboxes, whose longest life other parts of the
// product know as SANDBOX_TIMEOUT_SECONDS. Where nobody chose it, it keeps to
// the upper bound.
func sessionDuration(r *env.Reader, bound string) string {
	sandbox := r.Int("SANDBOX_TIMEOUT_SECONDS", 0, 0, 10*366*24*60*60)
	longest := "30d"
	if sandbox > defaultKeySeconds {
		longest = fmt.Sprintf("%ds", sandbox)
	}
	if key.Longer(longest, bound) {
		longest = bound
	}
	text := r.String(keyDuration, longest)
	d, err := key.ParseDuration(text)
	if err == nil {
		_, err = d.After(time.Now())
	}
	if err != nil {
		r.Fault(keyDuration, "%v", err)
		return ""
	}
	return text
}
