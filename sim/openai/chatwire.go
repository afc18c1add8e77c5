package openai

import "encoding/json"

// completion is a chat completion, or a chunk of one. Usage is left out, null or
// an object.
type completion struct {
	ID                string          `json:"id"`
	Object            string          `json:"object"`
	Created           int64           `json:"created"`
	Model             string          `json:"model"`
	Choices           []any           `json:"choices"`
	Usage             json.RawMessage `json:"usage,omitempty"`
	ServiceTier       string          `json:"service_tier"`
	SystemFingerprint string          `json:"system_fingerprint"`
	Obfuscation       string          `json:"obfuscation,omitempty"`
}

// choice is a choice of a whole completion.
type choice struct {
	Index        int     `json:"index"`
	Message      message `json:"message"`
	Logprobs     *string `json:"logprobs"`
	FinishReason string  `json:"finish_reason"`
}

type message struct {
	Role        string     `json:"role"`
	Content     *string    `json:"content"`
	ToolCalls   []wireCall `json:"tool_calls,omitempty"`
	Refusal     *string    `json:"refusal"`
	Annotations []string   `json:"annotations"`
}

func choiceOf(index int, a *answer) choice {
	m := message{Role: "assistant", Annotations: []string{}}
	if text := joined(a.text); text != "" || a.call == nil {
		m.Content = &text
	}
	if a.call != nil {
		m.ToolCalls = []wireCall{{
			ID: a.call.id, Type: "function",
			Function: wireFunction{a.call.name, joined(a.call.pieces)},
		}}
	}
	return choice{Index: index, Message: m, FinishReason: a.finishReason()}
}

func (a *answer) finishReason() string {
	switch {
	case a.truncated:
		return "length"
	case a.call != nil:
		return "tool_calls"
	}
	return "stop"
}

type wireCall struct {
	Index    *int         `json:"index,omitempty"` // in chunks
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type,omitempty"`
	Function wireFunction `json:"function"`
}

type wireFunction struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

// chunkChoice is a choice of a chunk.
type chunkChoice struct {
	Index        int     `json:"index"`
	Delta        any     `json:"delta"`
	Logprobs     *string `json:"logprobs"`
	FinishReason *string `json:"finish_reason"`
}

// Deltas of a chunk. The last one, beside the reason, is empty.
type (
	firstDelta struct {
		Role      string     `json:"role"`
		Content   *string    `json:"content"`
		ToolCalls []wireCall `json:"tool_calls,omitempty"`
		Refusal   *string    `json:"refusal"`
	}
	textDelta struct {
		Content string `json:"content"`
	}
	callDelta struct {
		ToolCalls []wireCall `json:"tool_calls"`
	}
	noDelta struct{}
)

// start is the beginning of the call as a chunk shows it.
func (t *toolCall) start() []wireCall {
	return []wireCall{{Index: new(int), ID: t.id, Type: "function", Function: wireFunction{Name: t.name}}}
}

// more is a delta of the call's arguments.
func (t *toolCall) more(p piece) callDelta {
	return callDelta{[]wireCall{{Index: new(int), Function: wireFunction{Arguments: p.text}}}}
}
