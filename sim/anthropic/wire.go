package anthropic

import "encoding/json"

// Usage is the token count of one answer, pool by pool, as the API reports it.
// Input, cache writes and cache reads are disjoint.
type Usage struct {
	InputTokens              int64          `json:"input_tokens"`
	CacheCreationInputTokens int64          `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int64          `json:"cache_read_input_tokens"`
	CacheCreation            CacheCreation  `json:"cache_creation"`
	OutputTokens             int64          `json:"output_tokens"`
	ServerToolUse            *ServerToolUse `json:"server_tool_use,omitempty"`
	ServiceTier              string         `json:"service_tier"`
	InferenceGeo             string         `json:"inference_geo"`
	Speed                    string         `json:"speed,omitempty"`
}

// CacheCreation splits the cache writes by lifetime.
type CacheCreation struct {
	Ephemeral5mInputTokens int64 `json:"ephemeral_5m_input_tokens"`
	Ephemeral1hInputTokens int64 `json:"ephemeral_1h_input_tokens"`
}

// ServerToolUse counts the tools that Anthropic ran.
type ServerToolUse struct {
	WebSearchRequests int64 `json:"web_search_requests"`
}

// deltaUsage is the cumulative usage of message_delta, which does not repeat the
// split of the cache writes.
type deltaUsage struct {
	InputTokens              int64          `json:"input_tokens"`
	CacheCreationInputTokens int64          `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int64          `json:"cache_read_input_tokens"`
	OutputTokens             int64          `json:"output_tokens"`
	ServerToolUse            *ServerToolUse `json:"server_tool_use,omitempty"`
}

func (u Usage) delta() deltaUsage {
	return deltaUsage{u.InputTokens, u.CacheCreationInputTokens, u.CacheReadInputTokens, u.OutputTokens, u.ServerToolUse}
}

// withSearches adds web searches and the input tokens of their results.
func (u Usage) withSearches(n int64) Usage {
	if n > 0 {
		u.InputTokens += n * searchTokens
		u.ServerToolUse = &ServerToolUse{WebSearchRequests: n}
	}
	return u
}

// messageBody is the message of a non-streaming answer and of message_start.
type messageBody struct {
	ID           string  `json:"id"`
	Type         string  `json:"type"`
	Role         string  `json:"role"`
	Model        string  `json:"model"`
	Content      []any   `json:"content"`
	StopReason   *string `json:"stop_reason"`
	StopSequence *string `json:"stop_sequence"`
	Usage        Usage   `json:"usage"`
}

func (a *answer) message(content []any, stopReason *string, usage Usage) messageBody {
	return messageBody{
		ID: a.id, Type: "message", Role: "assistant", Model: a.model,
		Content: content, StopReason: stopReason, Usage: usage,
	}
}

type textBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type thinkingBlock struct {
	Type      string `json:"type"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`
}

type toolBlock struct {
	Type  string          `json:"type"`
	ID    string          `json:"id"`
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

type searchBlock struct {
	Type      string         `json:"type"`
	ToolUseID string         `json:"tool_use_id"`
	Content   []searchResult `json:"content"`
}

type searchResult struct {
	Type             string `json:"type"`
	Title            string `json:"title"`
	URL              string `json:"url"`
	EncryptedContent string `json:"encrypted_content"`
	PageAge          string `json:"page_age"`
}

// first is the block as content_block_start shows it: still empty, but for
// search results, which come whole.
func (b *answerBlock) first() any {
	empty := answerBlock{kind: b.kind, id: b.id, name: b.name}
	return empty.full()
}

// full is the block as a non-streaming answer shows it.
func (b *answerBlock) full() any {
	switch b.kind {
	case "thinking":
		return thinkingBlock{b.kind, b.joined(), b.signature()}
	case "tool_use", "server_tool_use":
		input := json.RawMessage(b.joined())
		if !json.Valid(input) { // none yet, or cut by max_tokens
			input = json.RawMessage("{}")
		}
		return toolBlock{b.kind, b.id, b.name, input}
	case "web_search_tool_result":
		return searchBlock{b.kind, b.id, []searchResult{{
			Type: "web_search_result", Title: "A simulated page", URL: "https://example.com/",
			EncryptedContent: "c2ltdWxhdGVk", PageAge: "1 day ago",
		}}}
	}
	return textBlock{b.kind, b.joined()}
}

func (b *answerBlock) signature() string {
	for _, p := range b.pieces {
		if p.signature {
			return p.text
		}
	}
	return ""
}

// deltaBody is the delta of a content_block_delta; one of the texts is set.
type deltaBody struct {
	Type        string  `json:"type"`
	Text        *string `json:"text,omitempty"`
	Thinking    *string `json:"thinking,omitempty"`
	Signature   *string `json:"signature,omitempty"`
	PartialJSON *string `json:"partial_json,omitempty"`
}

func (b *answerBlock) delta(p piece) deltaBody {
	switch {
	case p.signature:
		return deltaBody{Type: "signature_delta", Signature: &p.text}
	case b.kind == "thinking":
		return deltaBody{Type: "thinking_delta", Thinking: &p.text}
	case b.kind == "text":
		return deltaBody{Type: "text_delta", Text: &p.text}
	}
	return deltaBody{Type: "input_json_delta", PartialJSON: &p.text}
}

// Events of a stream.
type (
	messageStart struct {
		Type    string      `json:"type"`
		Message messageBody `json:"message"`
	}
	blockStart struct {
		Type         string `json:"type"`
		Index        int    `json:"index"`
		ContentBlock any    `json:"content_block"`
	}
	blockDelta struct {
		Type  string    `json:"type"`
		Index int       `json:"index"`
		Delta deltaBody `json:"delta"`
	}
	blockStop struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
	}
	messageDelta struct {
		Type  string     `json:"type"`
		Delta stopDetail `json:"delta"`
		Usage deltaUsage `json:"usage"`
	}
	stopDetail struct {
		StopReason   string  `json:"stop_reason"`
		StopSequence *string `json:"stop_sequence"`
	}
)
