package openai

import (
	"cmp"
	"encoding/json"
	"slices"
)

// reply is a response to be: its answer, and what the request wants repeated.
type reply struct {
	id        string
	created   int64
	model     string
	tier      string // that serves it
	askedTier string
	answer    answer
	echo      map[string]json.RawMessage

	reasoningID string
	messageID   string
	encrypted   bool // the reasoning is wanted in its encrypted form
}

func newReply(t *turn, req *responsesRequest, created int64) *reply {
	return &reply{
		id: newID("resp_", 24), created: created, model: t.model.dated, answer: t.answer(), echo: req.echo,
		tier: t.tier, askedTier: cmp.Or(req.ServiceTier, "auto"),
		reasoningID: newID("rs_", 24), messageID: newID("msg_", 24),
		encrypted: slices.Contains(req.Include, "reasoning.encrypted_content"),
	}
}

// outcome is the status of the response when all is said.
func (r *reply) outcome() string {
	if r.answer.truncated {
		return "incomplete"
	}
	return "completed"
}

// items is the whole output. What max_output_tokens cut is the last item.
func (r *reply) items() []any {
	items := []any{}
	if r.answer.reasoning > 0 {
		items = append(items, r.reasoningItem())
	}
	if len(r.answer.text) > 0 {
		items = append(items, r.messageItem(r.statusBefore(r.answer.call == nil), joined(r.answer.text)))
	}
	if call := r.answer.call; call != nil {
		items = append(items, call.item(r.outcome(), joined(call.pieces)))
	}
	return items
}

// statusBefore is the status of an item, given whether it is the last.
func (r *reply) statusBefore(last bool) string {
	if last {
		return r.outcome()
	}
	return "completed"
}

// itemsByID is the output as item_reference names it.
func (r *reply) itemsByID() map[string]json.RawMessage {
	byID := map[string]json.RawMessage{}
	for _, item := range r.items() {
		raw, err := encode(item)
		if err != nil {
			continue
		}
		byID[itemID(item)] = raw
	}
	return byID
}

// continued is the conversation with the output of this response.
func (r *reply) continued(before conversation) conversation {
	for _, item := range r.items() {
		raw, err := encode(item)
		var in inputItem
		if err == nil && json.Unmarshal(raw, &in) == nil {
			_ = before.add(&in) // only results are refused, and these are none
		}
	}
	return before
}

// body is the response as it stands.
func (r *reply) body(status string, output []any, usage *responseUsage) responseBody {
	b := responseBody{
		ID: r.id, Object: "response", CreatedAt: r.created, Status: status, Model: r.model, Output: output,
		ServiceTier: r.tier, Usage: usage,
		Instructions:       r.repeated("instructions", "null"),
		MaxOutputTokens:    r.repeated("max_output_tokens", "null"),
		MaxToolCalls:       r.repeated("max_tool_calls", "null"),
		ParallelToolCalls:  r.repeated("parallel_tool_calls", "true"),
		PreviousResponseID: r.repeated("previous_response_id", "null"),
		PromptCacheKey:     r.repeated("prompt_cache_key", "null"),
		Reasoning:          r.repeated("reasoning", `{"effort":null,"summary":null}`),
		SafetyIdentifier:   r.repeated("safety_identifier", "null"),
		Store:              r.repeated("store", "true"),
		Temperature:        r.repeated("temperature", "1.0"),
		Text:               r.repeated("text", `{"format":{"type":"text"},"verbosity":"medium"}`),
		ToolChoice:         r.repeated("tool_choice", `"auto"`),
		Tools:              r.repeated("tools", "[]"),
		TopLogprobs:        r.repeated("top_logprobs", "0"),
		TopP:               r.repeated("top_p", "1.0"),
		Truncation:         r.repeated("truncation", `"disabled"`),
		User:               r.repeated("user", "null"),
		Metadata:           r.repeated("metadata", "{}"),
	}
	switch status {
	case "in_progress":
		b.ServiceTier = r.askedTier
	case "incomplete":
		b.IncompleteDetails = &incompleteDetails{"max_output_tokens"}
	case "completed":
		b.CompletedAt = &r.created
	}
	return b
}

// repeated is what the request says of a field, or what the API takes instead.
func (r *reply) repeated(name, def string) json.RawMessage {
	if raw, ok := r.echo[name]; ok && string(raw) != "null" {
		return raw
	}
	return json.RawMessage(def)
}
