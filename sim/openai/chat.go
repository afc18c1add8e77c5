package openai

import (
	"encoding/json"
	"slices"
)

// chatRequest is what the server reads of a chat completion request. Fields that
// it does not know are accepted.
type chatRequest struct {
	Model               string         `json:"model"`
	Messages            []chatMessage  `json:"messages"`
	Tools               []tool         `json:"tools"`
	ToolChoice          toolChoice     `json:"tool_choice"`
	N                   *int64         `json:"n"`
	MaxTokens           *int64         `json:"max_tokens"`
	MaxCompletionTokens *int64         `json:"max_completion_tokens"`
	ReasoningEffort     string         `json:"reasoning_effort"`
	ServiceTier         string         `json:"service_tier"`
	Stream              bool           `json:"stream"`
	StreamOptions       *streamOptions `json:"stream_options"`
}

type streamOptions struct {
	IncludeUsage       bool  `json:"include_usage"`
	IncludeObfuscation *bool `json:"include_obfuscation"`
}

type chatMessage struct {
	Role      string            `json:"role"`
	Content   content           `json:"content"`
	ToolCalls []json.RawMessage `json:"tool_calls"`
}

// mostChoices is the largest n.
const mostChoices = 128

// chat serves POST /v1/chat/completions.
func (s *Server) chat(c *call) error {
	var req chatRequest
	if err := decode(c.body, &req); err != nil {
		return err
	}
	t, err := s.chatTurn(c, &req)
	if err != nil {
		return err
	}
	if err := s.begin(c, &t); err != nil {
		return err
	}
	answers := make([]answer, 1)
	if req.N != nil {
		answers = make([]answer, *req.N)
	}
	for i := range answers {
		answers[i] = t.answer()
	}
	done := completion{
		ID: newID("chatcmpl-", 12), Created: s.opts.Now().Unix(), Model: t.model.dated,
		ServiceTier: t.tier, SystemFingerprint: "fp_simulated",
	}
	usage := s.startUsage(c, &t)
	for i := range answers {
		usage.ReasoningTokens += answers[i].reasoning
	}
	usage.OutputTokens = usage.ReasoningTokens
	if req.Stream {
		return s.streamChat(c, &t, &req, done, answers, usage)
	}
	return s.wholeChat(c, &t, done, answers, usage)
}

// wholeChat sends a completion in one piece.
func (s *Server) wholeChat(c *call, t *turn, done completion, answers []answer, usage Usage) error {
	usage.OutputTokens = 0
	done.Object = "chat.completion"
	for i := range answers {
		usage.OutputTokens += answers[i].tokens()
		done.Choices = append(done.Choices, choiceOf(i, &answers[i]))
	}
	usageJSON, err := encode(usage.chat())
	if err != nil {
		return err
	}
	done.Usage = usageJSON
	return s.whole(c, t, Entry{ID: done.ID, API: "chat", Usage: usage}, done)
}

// chatTurn checks a request and makes a turn of it.
func (s *Server) chatTurn(c *call, req *chatRequest) (turn, error) {
	if req.Model == "" {
		return turn{}, invalid("", "", "you must provide a model parameter")
	}
	m, err := findModel(req.Model)
	if err != nil {
		return turn{}, err
	}
	if err := req.check(m); err != nil {
		return turn{}, err
	}
	t := turn{model: m, prompt: req.render(), tools: req.Tools, choice: req.ToolChoice, effort: req.ReasoningEffort}
	t.answersTool = req.answersTool()
	if t.limit, err = req.limit(); err != nil {
		return turn{}, err
	}
	if t.tier, err = serviceTier(req.ServiceTier); err != nil {
		return turn{}, err
	}
	if n := textTokens(len(t.prompt)); n > m.context {
		return turn{}, invalid("messages", "context_length_exceeded",
			"This model's maximum context length is %d tokens. However, your messages resulted in %d tokens. Please reduce the length of the messages.",
			m.context, n)
	}
	t.script, err = s.script(c, req.scriptText())
	return t, err
}

// check applies the rules that need nothing but the request and its model.
func (r *chatRequest) check(m model) error {
	switch {
	case len(r.Messages) == 0:
		return missing("messages")
	case r.N != nil && (*r.N < 1 || *r.N > mostChoices):
		return invalid("n", "", "Invalid 'n': expected a value from 1 to %d, but got %d instead.", mostChoices, *r.N)
	case r.StreamOptions != nil && !r.Stream:
		return invalid("stream_options", "", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
	case r.MaxTokens != nil && m.reasons:
		return invalid("max_tokens", "unsupported_parameter",
			"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
	}
	for i, message := range r.Messages {
		if !slices.Contains([]string{"system", "developer", "user", "assistant", "tool", "function"}, message.Role) {
			return invalid("messages", "invalid_value", "Invalid value: '%s' in messages[%d].role.", message.Role, i)
		}
	}
	return nil
}

func (r *chatRequest) limit() (int64, error) {
	if r.MaxCompletionTokens != nil {
		return limits{"max_completion_tokens", r.MaxCompletionTokens, 1}.check()
	}
	return limits{"max_tokens", r.MaxTokens, 1}.check()
}

func (r *chatRequest) render() []byte {
	var p rendering
	p.tools(r.Tools)
	for _, m := range r.Messages {
		p.content(m.Role, m.Content)
		for _, call := range m.ToolCalls {
			p.item(m.Role, call)
		}
	}
	return p.Bytes()
}

func (r *chatRequest) answersTool() bool {
	last := r.Messages[len(r.Messages)-1].Role
	return last == "tool" || last == "function"
}

// scriptText is the text of the last user message, unless a tool's result came
// after it.
func (r *chatRequest) scriptText() string {
	for _, m := range slices.Backward(r.Messages) {
		switch m.Role {
		case "user":
			return m.Content.text()
		case "tool", "function":
			return ""
		}
	}
	return ""
}
