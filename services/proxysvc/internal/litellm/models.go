package litellm

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// ListModelInfo implements GET /model/info.
func (s *Server) ListModelInfo(_ context.Context, r *litellmv1.ListModelInfoRequest) (*litellmv1.ListModelInfoResponse, error) {
	out := &litellmv1.ListModelInfoResponse{}
	for _, o := range s.models.Offers() {
		if r.GetLitellmModelId() == "" || r.GetLitellmModelId() == o.Deployment.ID {
			out.Data = append(out.Data, modelRow(o, s.now()))
		}
	}
	if r.GetLitellmModelId() != "" && len(out.GetData()) == 0 {
		return nil, fault.Errorf(fault.Invalid, "Model id = %.100s not found on litellm proxy", r.GetLitellmModelId())
	}
	return out, nil
}

func modelRow(o proxy.Offer, now time.Time) *structpb.Struct {
	d := o.Deployment
	info := map[string]*structpb.Value{
		"id":                structpb.NewStringValue(d.ID),
		"db_model":          structpb.NewBoolValue(false),
		"key":               structpb.NewStringValue(d.Model),
		"litellm_provider":  structpb.NewStringValue(string(d.Provider)),
		"mode":              structpb.NewStringValue("chat"),
		"max_tokens":        structpb.NewNullValue(),
		"max_output_tokens": structpb.NewNullValue(),
		"max_input_tokens":  structpb.NewNullValue(), // the price list does not know it
	}
	for name := range tokenRates {
		info[name] = structpb.NewNullValue()
	}
	if o.Price != nil {
		if o.Price.MaxOutputTokens > 0 {
			info["max_tokens"] = count(o.Price.MaxOutputTokens)
			info["max_output_tokens"] = count(o.Price.MaxOutputTokens)
		}
		for name, pool := range tokenRates {
			info[name] = perToken(o.Price, pool, now)
		}
	}
	return fields(map[string]*structpb.Value{
		"model_name": structpb.NewStringValue(d.ModelName),
		"litellm_params": structpb.NewStructValue(fields(map[string]*structpb.Value{
			"model": structpb.NewStringValue(string(d.Provider) + "/" + d.Model),
		})),
		"model_info": structpb.NewStructValue(fields(info)),
	})
}

// pricedTokens are so few that no tier by size of prompt begins below them, and
// so many that a rate in nano-dollars per million of them stays whole.
const pricedTokens = 100_000

// tokenRates are LiteLLM's names of the rates, and a use of each pool.
var tokenRates = map[string]pricing.Usage{
	"input_cost_per_token":                      {InputTokens: pricedTokens},
	"output_cost_per_token":                     {OutputTokens: pricedTokens},
	"cache_read_input_token_cost":               {CacheReadTokens: pricedTokens},
	"cache_creation_input_token_cost":           {CacheWrite5mTokens: pricedTokens},
	"cache_creation_input_token_cost_above_1hr": {CacheWrite1hTokens: pricedTokens},
}

func perToken(m *pricing.Model, pool pricing.Usage, now time.Time) *structpb.Value {
	cost, err := m.Cost(pool, now)
	if err != nil {
		return structpb.NewNullValue()
	}
	return structpb.NewNumberValue(float64(cost) / (pricedTokens * 1e9))
}

// GetHealth implements GET /health from what traffic has shown on this replica:
// unlike LiteLLM's it costs nothing. A deployment that is full is healthy.
func (s *Server) GetHealth(_ context.Context, r *litellmv1.GetHealthRequest) (*litellmv1.GetHealthResponse, error) {
	out := &litellmv1.GetHealthResponse{}
	for _, o := range s.models.Offers() {
		if r.GetModel() != "" && r.GetModel() != o.Deployment.ModelName {
			continue
		}
		row := fields(map[string]*structpb.Value{
			"model":    structpb.NewStringValue(string(o.Deployment.Provider) + "/" + o.Deployment.Model),
			"model_id": structpb.NewStringValue(o.Deployment.ID),
		})
		switch o.Condition {
		case proxy.Cooling:
			row.Fields["error"] = structpb.NewStringValue("it failed, or asked for a pause, and is left alone for a while")
			out.UnhealthyEndpoints = append(out.UnhealthyEndpoints, row)
		case proxy.Withdrawn:
			row.Fields["error"] = structpb.NewStringValue("the provider refuses its api_key")
			out.UnhealthyEndpoints = append(out.UnhealthyEndpoints, row)
		default:
			out.HealthyEndpoints = append(out.HealthyEndpoints, row)
		}
	}
	out.HealthyCount, out.UnhealthyCount = int32(len(out.GetHealthyEndpoints())), int32(len(out.GetUnhealthyEndpoints()))
	return out, nil
}

// CalculateSpend implements POST /spend/calculate.
func (s *Server) CalculateSpend(_ context.Context, r *litellmv1.CalculateSpendRequest) (*litellmv1.CalculateSpendResponse, error) {
	var model string
	var use pricing.Usage
	switch {
	case r.GetModel() != nil && r.GetMessages() == nil:
		return nil, fault.Errorf(fault.Invalid, "Bad Request - messages must be provided if 'model' is provided")
	case r.GetModel() != nil:
		model = r.GetModel().GetValue()
		use.InputTokens = guessTokens(structpb.NewListValue(r.GetMessages()))
	case r.GetCompletionResponse() != nil:
		response := r.GetCompletionResponse().GetFields()
		model, use = response["model"].GetStringValue(), usageOf(response["usage"].GetStructValue())
	default:
		return nil, fault.Errorf(fault.Invalid, "Bad Request - Either 'model' or 'completion_response' must be provided")
	}
	price, err := s.models.Price(model)
	if err != nil {
		return nil, fault.Errorf(fault.Invalid, "model %.100q has no price", model)
	}
	cost, err := price.Cost(use, s.now())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "usage: its counts are negative or too large")
	}
	return &litellmv1.CalculateSpendResponse{Cost: usd(cost)}, nil
}

// bytesPerToken is an average of English prose; there is no tokenizer here.
const bytesPerToken = 4

// guessTokens guesses the size of messages by their JSON.
func guessTokens(messages *structpb.Value) int64 {
	doc, err := json.Marshal(messages.AsInterface())
	if err != nil {
		return 0 // cannot happen: it came as JSON
	}
	return int64(len(doc)+bytesPerToken-1) / bytesPerToken
}

// usageOf reads the usage of Anthropic's and of OpenAI's two shapes. OpenAI's and
// LiteLLM's own count caches into the prompt, Anthropic's does not.
func usageOf(u *structpb.Struct) pricing.Usage {
	at := func(path ...string) int64 {
		v := structpb.NewStructValue(u)
		for _, name := range path {
			v = v.GetStructValue().GetFields()[name]
		}
		return int64(v.GetNumberValue())
	}
	word := func(name string) string { return u.GetFields()[name].GetStringValue() }
	use := pricing.Usage{
		OutputTokens:      at("output_tokens") + at("completion_tokens"),
		CacheReadTokens:   at("cache_read_input_tokens"),
		WebSearchRequests: at("server_tool_use", "web_search_requests"),
		Speed:             word("speed"), InferenceGeo: word("inference_geo"), ServiceTier: word("service_tier"),
	}
	if use.CacheReadTokens == 0 {
		use.CacheReadTokens = at("prompt_tokens_details", "cached_tokens") + at("input_tokens_details", "cached_tokens")
	}
	use.CacheWrite1hTokens = at("cache_creation", "ephemeral_1h_input_tokens")
	use.CacheWrite5mTokens = max(at("cache_creation_input_tokens")-use.CacheWrite1hTokens, 0)
	use.InputTokens = at("input_tokens") + at("prompt_tokens")
	_, counted := u.GetFields()["prompt_tokens"]
	if _, responses := u.GetFields()["input_tokens_details"]; counted || responses {
		use.InputTokens = max(use.InputTokens-use.CacheReadTokens-use.CacheWrite5mTokens-use.CacheWrite1hTokens, 0)
	}
	return use
}
