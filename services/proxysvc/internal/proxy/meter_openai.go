package proxy

import (
	"bytes"
	"encoding/json"
	"strings"
)

// chatMeter meters Chat Completions. A stream reports its usage only at its end,
// in a chunk without choices that precedes "[DONE]".
type chatMeter struct {
	answer
	hideUsage bool // that chunk was asked for by us
}

// openAIUsage is OpenAI's usage object: of Chat Completions (prompt_…) and of
// Responses (input_…). Cached and written tokens are part of the input,
// reasoning is part of the output.
type openAIUsage struct {
	PromptTokens     *int64       `json:"prompt_tokens"`
	CompletionTokens *int64       `json:"completion_tokens"`
	PromptDetails    inputDetails `json:"prompt_tokens_details"`
	OutputDetails    struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`

	InputTokens           *int64       `json:"input_tokens"`
	OutputTokens          *int64       `json:"output_tokens"`
	InputDetails          inputDetails `json:"input_tokens_details"`
	ResponseOutputDetails struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
}

type inputDetails struct {
	CachedTokens     int64 `json:"cached_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
}

func (a *answer) takeOpenAI(u *openAIUsage) {
	if u == nil {
		return
	}
	in, out := u.PromptTokens, u.CompletionTokens
	details, reasoning := u.PromptDetails, u.OutputDetails.ReasoningTokens
	if u.InputTokens != nil {
		in, out = u.InputTokens, u.OutputTokens
		details, reasoning = u.InputDetails, u.ResponseOutputDetails.ReasoningTokens
	}
	if in == nil || out == nil {
		return
	}
	a.usage.CacheReadTokens = details.CachedTokens
	a.usage.CacheWrite5mTokens = details.CacheWriteTokens
	a.usage.InputTokens = max(0, *in-details.CachedTokens-details.CacheWriteTokens)
	a.usage.OutputTokens, a.usage.ReasoningTokens = *out, reasoning
	a.started, a.counted, a.unmetered = true, true, 0
}

type chatChunk struct {
	ID          string `json:"id"`
	ServiceTier string `json:"service_tier"`
	Choices     []struct {
		FinishReason string    `json:"finish_reason"`
		Delta        chatDelta `json:"delta"`
	} `json:"choices"`
	Usage *openAIUsage    `json:"usage"`
	Error json.RawMessage `json:"error"`
}

type chatDelta struct {
	Content   string `json:"content"`
	Refusal   string `json:"refusal"`
	Reasoning string `json:"reasoning_content"`
	ToolCalls []struct {
		Function struct {
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

func (d chatDelta) len() int64 {
	n := len(d.Content) + len(d.Refusal) + len(d.Reasoning)
	for _, c := range d.ToolCalls {
		n += len(c.Function.Arguments)
	}
	return int64(n)
}

// Event implements meter.
func (m *chatMeter) Event(_, data []byte) verdict {
	if string(data) == "[DONE]" {
		m.Complete = true
		return last
	}
	var c chatChunk
	if json.Unmarshal(data, &c) != nil {
		return pass
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		m.ErrorType = errorType(data)
		return last
	}
	m.take(c)
	if m.hideUsage && c.Usage != nil && len(c.Choices) == 0 {
		return withhold
	}
	return pass
}

func (m *chatMeter) take(c chatChunk) {
	setText(&m.MessageID, c.ID)
	setText(&m.usage.ServiceTier, c.ServiceTier)
	for _, choice := range c.Choices {
		setText(&m.StopReason, choice.FinishReason)
		m.unmetered += choice.Delta.len()
	}
	m.takeOpenAI(c.Usage)
}

// Body implements meter.
func (m *chatMeter) Body(body []byte) {
	var c chatChunk
	if json.Unmarshal(body, &c) == nil {
		m.take(c)
		m.Complete = m.started
	}
}

// responsesMeter meters Responses. The event that ends a stream carries the
// whole response with its usage.
type responsesMeter struct{ answer }

type response struct {
	ID                string       `json:"id"`
	Status            string       `json:"status"`
	ServiceTier       string       `json:"service_tier"`
	Usage             *openAIUsage `json:"usage"`
	IncompleteDetails struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	Error struct {
		Code string `json:"code"`
	} `json:"error"`
}

var deltaField = []byte(`"delta"`)

// Event implements meter.
func (m *responsesMeter) Event(name, data []byte) verdict {
	switch n := string(name); {
	case strings.HasSuffix(n, ".delta"):
		size, _ := fieldLen(data, deltaField)
		m.unmetered += size
	case n == "response.created", n == "response.completed", n == "response.incomplete", n == "response.failed":
		var e struct {
			Response response `json:"response"`
		}
		if json.Unmarshal(data, &e) == nil {
			m.take(e.Response)
		}
		if n == "response.created" {
			return pass
		}
		m.Complete = n != "response.failed"
		return last
	case n == "error":
		m.ErrorType = responsesErrorType(data)
		return last
	}
	return pass
}

func (m *responsesMeter) take(r response) {
	setText(&m.MessageID, r.ID)
	setText(&m.usage.ServiceTier, r.ServiceTier)
	m.StopReason = r.Status
	setText(&m.StopReason, r.IncompleteDetails.Reason)
	setText(&m.ErrorType, r.Error.Code)
	m.takeOpenAI(r.Usage)
}

// Body implements meter.
func (m *responsesMeter) Body(body []byte) {
	var r response
	if json.Unmarshal(body, &r) == nil {
		m.take(r)
		m.Complete = m.started
	}
}

// responsesErrorType reads the code of an error event, which stands at the top.
func responsesErrorType(data []byte) string {
	var e struct {
		Code string `json:"code"`
	}
	if bytes.Contains(data, []byte(`"code"`)) && json.Unmarshal(data, &e) == nil && e.Code != "" {
		return e.Code
	}
	return errorType(data)
}
