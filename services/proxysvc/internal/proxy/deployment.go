package proxy

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Provider is whose API a deployment speaks.
type Provider string

// The providers, as LiteLLM names them in front of a model ("anthropic/…").
const (
	Anthropic Provider = "anthropic"
	OpenAI    Provider = "openai"
)

// Deployment is a model behind a real key: one entry of model_list.
type Deployment struct {
	ID        string   // stable for the same settings
	ModelName string   // what clients send; may end in "*"
	Provider  Provider // whose API it speaks
	Model     string   // what the upstream is asked for, without the provider; "*" at its end stands for what the name's "*" matched
	APIBase   string   // without a path, e.g. https://api.anthropic.com
	APIKey    secret.String
	// Weight is its share of the sessions among the deployments of one name and
	// order; 1 unless it is set. 0: no session while another one is healthy.
	Weight int
	// Order: the lowest goes first; the next one when none of it is healthy.
	Order int
	// RPM and TPM bound its requests and tokens a minute on one replica; 0: no
	// bound.
	RPM, TPM int64
	// Timeout bounds a whole answer that is not streamed, StreamTimeout the time
	// to the first byte of a stream. 0: the routing's.
	Timeout, StreamTimeout time.Duration
	// MaxRetries wins over the routing's NumRetries for requests whose first
	// choice this deployment is; nil: not set.
	MaxRetries *int
	// Cooldown wins over the routing's; 0: not set.
	Cooldown time.Duration
	// Price wins over the price list; nil: the list's entry of Model.
	Price *pricing.Model
}

// Routing says which names clients may send and how requests are spread and
// retried. It never changes; a new one replaces it whole.
type Routing struct {
	Deployments []Deployment
	// Aliases are other names for a model name (model_group_alias).
	Aliases map[string]string
	// Fallbacks are the names that are tried, in order, when a name's own
	// deployments have failed; "*": for every name that has none of its own.
	Fallbacks map[string][]string
	// NumRetries is how often a request that failed is sent again; 0: clients
	// retry by themselves.
	NumRetries int
	// RetryAfter is the least pause before a retry.
	RetryAfter time.Duration
	// Timeout and StreamTimeout are those of deployments that have none; 0: none
	// but the idle limit.
	Timeout, StreamTimeout time.Duration
	// AllowedFails is how many failures a minute a deployment may have before it
	// cools for Cooldown.
	AllowedFails int
	Cooldown     time.Duration
}
