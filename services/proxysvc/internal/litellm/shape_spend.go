package litellm

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// stamp is an instant as LiteLLM writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

func stampOrNull(t time.Time) *structpb.Value {
	if t.IsZero() {
		return structpb.NewNullValue()
	}
	return structpb.NewStringValue(stamp(t))
}

// spendRow is a row of LiteLLM_SpendLogs, with the meaning that its columns have
// in the view of that name. Whole rows have the columns of bodies too, which are
// always empty: bodies are not kept.
func spendRow(r *ledger.Row, whole bool) *structpb.Struct {
	prompt := r.Usage.PromptTokens()
	row := map[string]*structpb.Value{
		"request_id":      structpb.NewStringValue(r.RequestID),
		"litellm_call_id": structpb.NewStringValue(r.RequestID),
		"call_type":       structpb.NewStringValue(callType(r)),
		"api_key":         structpb.NewStringValue(r.Token),
		"spend":           structpb.NewNumberValue(usd(r.Cost)),

		"total_tokens":      count(prompt + r.Usage.OutputTokens),
		"prompt_tokens":     count(prompt),
		"completion_tokens": count(r.Usage.OutputTokens),

		"startTime":           structpb.NewStringValue(stamp(r.StartedAt)),
		"endTime":             structpb.NewStringValue(stamp(r.EndedAt)),
		"completionStartTime": stampOrNull(r.FirstByteAt),
		"request_duration_ms": count(r.EndedAt.Sub(r.StartedAt).Milliseconds()),

		"model":               structpb.NewStringValue(r.Model),
		"model_id":            structpb.NewStringValue(r.ModelID),
		"model_group":         structpb.NewStringValue(r.ModelGroup),
		"custom_llm_provider": structpb.NewStringValue(providerOf(r.Model)),
		"api_base":            structpb.NewStringValue(""),

		"user":         structpb.NewStringValue(r.UserID),
		"team_id":      textOrNull(r.TeamID),
		"end_user":     textOrNull(r.Client["end_user"]),
		"session_id":   textOrNull(firstText(r.Client["session_id"], r.UserID)),
		"request_tags": structpb.NewListValue(texts(r.Tags)),
		"status":       structpb.NewStringValue(outcome(r)),
		"cache_hit":    structpb.NewStringValue("None"),
		"cache_key":    structpb.NewStringValue("Cache OFF"),
		"metadata":     structpb.NewStructValue(spendMetadata(r)),

		"organization_id": structpb.NewNullValue(), "requester_ip_address": structpb.NewNullValue(),
		"mcp_namespaced_tool_name": structpb.NewNullValue(), "agent_id": structpb.NewNullValue(),
	}
	if whole {
		for _, name := range []string{"messages", "response", "proxy_server_request"} {
			row[name] = structpb.NewStructValue(fields(nil))
		}
	}
	return fields(row)
}

func spendMetadata(r *ledger.Row) *structpb.Struct {
	u := r.Usage
	caches := map[string]*structpb.Value{
		"cache_read_input_tokens":     count(u.CacheReadTokens),
		"cache_creation_input_tokens": count(u.CacheWrite5mTokens + u.CacheWrite1hTokens),
	}
	usage := map[string]*structpb.Value{"input_tokens": count(u.InputTokens), "output_tokens": count(u.OutputTokens)}
	for name, v := range caches {
		usage[name] = v
	}
	m := map[string]*structpb.Value{
		"user_api_key":            structpb.NewStringValue(r.Token),
		"user_api_key_team_id":    textOrNull(r.TeamID),
		"user_api_key_user_id":    textOrNull(r.UserID),
		"usage_object":            structpb.NewStructValue(fields(usage)),
		"additional_usage_values": structpb.NewStructValue(fields(caches)),
		"cost_breakdown":          structpb.NewStructValue(amounts(r.Breakdown)),
		"status":                  structpb.NewStringValue(outcome(r)),
		"error_information":       structpb.NewNullValue(),
		"attempted_retries":       count(int64(r.Retries)),
		"estimated":               structpb.NewBoolValue(r.Estimated),
	}
	if r.ErrorType != "" {
		m["error_information"] = structpb.NewStructValue(fields(map[string]*structpb.Value{
			"error_code": structpb.NewStringValue(strconv.Itoa(r.HTTPStatus)), "error_class": structpb.NewStringValue(r.ErrorType),
		}))
	}
	return fields(m)
}

func callType(r *ledger.Row) string {
	if r.Adjusts != "" {
		return "adjustment"
	}
	return "anthropic_messages"
}

// outcome is LiteLLM's status of a row.
func outcome(r *ledger.Row) string {
	if r.Status == ledger.Completed || r.Status == ledger.Adjusted {
		return "success"
	}
	return "failure"
}

// providerOf tells whose a model is by its name.
func providerOf(model string) string {
	if strings.HasPrefix(model, "claude") {
		return "anthropic"
	}
	return "openai"
}

func count(n int64) *structpb.Value { return structpb.NewNumberValue(float64(n)) }

func texts(list []string) *structpb.ListValue {
	l := &structpb.ListValue{}
	for _, t := range list {
		l.Values = append(l.Values, structpb.NewStringValue(t))
	}
	return l
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// totalTokens are all tokens of a use.
func totalTokens(u pricing.Usage) int64 { return u.PromptTokens() + u.OutputTokens }
