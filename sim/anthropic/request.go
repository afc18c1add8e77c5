package anthropic

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// request is what the server reads of a Messages request. Fields that it does
// not know are accepted, as betas add them all the time.
type request struct {
	Model        string          `json:"model"`
	MaxTokens    *int64          `json:"max_tokens"`
	Messages     []message       `json:"messages"`
	System       content         `json:"system"`
	Tools        []tool          `json:"tools"`
	ToolChoice   *toolChoice     `json:"tool_choice"`
	Thinking     *typed          `json:"thinking"`
	Stream       bool            `json:"stream"`
	InferenceGeo string          `json:"inference_geo"`
	Speed        string          `json:"speed"`
	Thread       *thread         `json:"thread"`
	Temperature  json.RawMessage `json:"temperature"`
	TopP         json.RawMessage `json:"top_p"`
	TopK         json.RawMessage `json:"top_k"`
}

type typed struct {
	Type string `json:"type"`
}

type toolChoice struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

type message struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// tool keeps its JSON, which is what is counted and cached.
type tool struct {
	Type        string
	Name        string
	InputSchema json.RawMessage
	raw         json.RawMessage
}

// isServer tells tools that Anthropic runs itself from those of the client.
func (t tool) isServer() bool {
	return slices.ContainsFunc([]string{"web_search_", "web_fetch_", "code_execution_", "tool_search_", "mcp_toolset"},
		func(prefix string) bool { return strings.HasPrefix(t.Type, prefix) })
}

func (t *tool) UnmarshalJSON(p []byte) error {
	var fields struct {
		Type        string          `json:"type"`
		Name        string          `json:"name"`
		InputSchema json.RawMessage `json:"input_schema"`
	}
	if err := json.Unmarshal(p, &fields); err != nil {
		return err
	}
	*t = tool{Type: fields.Type, Name: fields.Name, InputSchema: fields.InputSchema, raw: bytes.Clone(p)}
	return nil
}

// content is a string or a list of blocks; a string becomes one text block.
type content []json.RawMessage

func (c *content) UnmarshalJSON(p []byte) error {
	if len(p) == 0 || p[0] != '"' {
		return json.Unmarshal(p, (*[]json.RawMessage)(c))
	}
	var text string
	if err := json.Unmarshal(p, &text); err != nil {
		return err
	}
	block, err := json.Marshal(map[string]string{"type": "text", "text": text})
	*c = content{block}
	return err
}

// block is what the server reads of a content block.
type block struct {
	Type         string        `json:"type"`
	Text         string        `json:"text"`
	CacheControl *cacheControl `json:"cache_control"`
}

type cacheControl struct {
	Type string `json:"type"`
	TTL  string `json:"ttl"`
}

// prompt is a request that passed the checks, with its model and its script.
type prompt struct {
	request
	model  model
	script script
	last   []block // the last user message
}

// parsePrompt checks a request. countOnly requests need no max_tokens.
func (s *Server) parsePrompt(c *call, countOnly bool) (prompt, error) {
	var p prompt
	if err := json.Unmarshal(c.body, &p.request); err != nil {
		return prompt{}, invalid("The request body is not valid JSON: %v", err)
	}
	if p.Model == "" {
		return prompt{}, invalid("model: Field required")
	}
	var err error
	if p.model, err = findModel(p.Model); err != nil {
		return prompt{}, err
	}
	if err := p.check(c.r.Header, countOnly); err != nil {
		return prompt{}, err
	}
	if p.last, err = p.lastUserMessage(); err != nil {
		return prompt{}, err
	}
	p.script, err = s.readScript(c.r.Header.Get("x-sim-script"), &p)
	return p, err
}

// check applies the rules that need nothing but the request.
func (p *prompt) check(h http.Header, countOnly bool) error {
	if !countOnly {
		switch {
		case p.MaxTokens == nil:
			return invalid("max_tokens: Field required")
		case *p.MaxTokens < 1:
			return invalid("max_tokens: must be greater than or equal to 1")
		case *p.MaxTokens > int64(p.model.maxOutput):
			return invalid("max_tokens: %d > %d, which is the maximum allowed number of output tokens for %s",
				*p.MaxTokens, p.model.maxOutput, p.Model)
		}
	}
	if len(p.Messages) == 0 {
		return invalid("messages: at least one message is required")
	}
	for i, m := range p.Messages {
		if m.Role != "user" && m.Role != "assistant" && m.Role != "system" {
			return invalid("messages.%d.role: Input should be 'user' or 'assistant'", i)
		}
		if len(m.Content) == 0 {
			return invalid("messages.%d.content: must not be empty", i)
		}
	}
	if p.InferenceGeo != "" && !p.model.geo {
		return invalid("inference_geo: is not supported by %s", p.Model)
	}
	if refusesSampling(h.Get("anthropic-version")) && (p.Temperature != nil || p.TopP != nil || p.TopK != nil) {
		return invalid("temperature, top_p and top_k are not supported from anthropic-version 2026-10-21 on")
	}
	if p.Thread != nil {
		return p.Thread.check(p, h)
	}
	return nil
}

// lastUserMessage returns the blocks of the last message of the user.
func (p *prompt) lastUserMessage() ([]block, error) {
	for i, m := range slices.Backward(p.Messages) {
		if m.Role != "user" {
			continue
		}
		blocks := make([]block, len(m.Content))
		for j, raw := range m.Content {
			if err := json.Unmarshal(raw, &blocks[j]); err != nil {
				return nil, invalid("messages.%d.content.%d: %v", i, j, err)
			}
		}
		return blocks, nil
	}
	return nil, nil
}

// answersTool reports whether the last user message carries a tool's result.
func (p *prompt) answersTool() bool {
	return slices.ContainsFunc(p.last, func(b block) bool { return b.Type == "tool_result" })
}
