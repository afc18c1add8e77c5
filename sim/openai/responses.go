package openai

import (
	"encoding/json"
	"maps"
	"slices"
)

// responsesRequest is what the server reads of a request for a response. Fields
// that it does not know are accepted.
type responsesRequest struct {
	Model              string     `json:"model"`
	Input              *input     `json:"input"`
	Instructions       string     `json:"instructions"`
	PreviousResponseID string     `json:"previous_response_id"`
	Store              *bool      `json:"store"`
	Include            []string   `json:"include"`
	Tools              []tool     `json:"tools"`
	ToolChoice         toolChoice `json:"tool_choice"`
	MaxOutputTokens    *int64     `json:"max_output_tokens"`
	Reasoning          struct {
		Effort string `json:"effort"`
	} `json:"reasoning"`
	ServiceTier   string         `json:"service_tier"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`

	echo map[string]json.RawMessage // all of it, to be repeated in the response
}

// leastOutput is the smallest max_output_tokens.
const leastOutput = 16

// responses serves POST /v1/responses.
func (s *Server) responses(c *call) error {
	var req responsesRequest
	if err := decode(c.body, &req); err != nil {
		return err
	}
	if err := decode(c.body, &req.echo); err != nil {
		return err
	}
	t, before, err := s.responsesTurn(c, &req)
	if err != nil {
		return err
	}
	if err := s.begin(c, &t); err != nil {
		return err
	}
	r := newReply(&t, &req, s.opts.Now().Unix())
	usage := s.startUsage(c, &t)
	usage.ReasoningTokens = r.answer.reasoning
	usage.OutputTokens = usage.ReasoningTokens
	keep := func() {
		if req.Store == nil || *req.Store {
			s.store.keep(c.key, r.id, r.continued(before), r.itemsByID())
		}
	}
	if req.Stream {
		return s.streamResponse(c, &t, &req, r, usage, keep)
	}
	usage.OutputTokens = r.answer.tokens()
	keep()
	body := r.body(r.outcome(), r.items(), usage.response())
	return s.whole(c, &t, Entry{ID: r.id, API: "responses", Usage: usage}, body)
}

// responsesTurn checks a request and makes a turn of it, with the conversation
// that the response ends.
func (s *Server) responsesTurn(c *call, req *responsesRequest) (turn, conversation, error) {
	m, err := req.check()
	if err != nil {
		return turn{}, conversation{}, err
	}
	said, err := s.conversation(c.key, req)
	if err != nil {
		return turn{}, conversation{}, err
	}
	t := turn{model: m, tools: req.Tools, choice: req.ToolChoice, effort: req.Reasoning.Effort}
	t.prompt = append(req.renderHead(), said.prompt...)
	t.answersTool = req.Input.answersTool()
	if n := textTokens(len(t.prompt)); n > m.context {
		return turn{}, conversation{}, invalid("input", "context_length_exceeded",
			"Your input exceeds the context window of this model. Please adjust your input and try again.")
	}
	if t.limit, err = (limits{"max_output_tokens", req.MaxOutputTokens, leastOutput}).check(); err != nil {
		return turn{}, conversation{}, err
	}
	if t.tier, err = serviceTier(req.ServiceTier); err != nil {
		return turn{}, conversation{}, err
	}
	t.script, err = s.script(c, req.Input.scriptText())
	return t, said, err
}

// check applies the rules that need nothing but the request.
func (r *responsesRequest) check() (model, error) {
	if r.Model == "" {
		return model{}, missing("model")
	}
	m, err := findModel(r.Model)
	if err != nil {
		return model{}, err
	}
	if r.Input == nil {
		return model{}, missing("input")
	}
	return m, nil
}

// renderHead renders what a conversation does not carry on.
func (r *responsesRequest) renderHead() []byte {
	var p rendering
	p.tools(r.Tools)
	if r.Instructions != "" {
		p.line("developer", r.Instructions)
	}
	return p.Bytes()
}

// conversation returns all that was said before the response: what the previous
// one ended and the input of this one, with its references resolved.
func (s *Server) conversation(key string, req *responsesRequest) (conversation, error) {
	said := conversation{calls: map[string]bool{}}
	if id := req.PreviousResponseID; id != "" {
		before, err := s.store.conversation(key, id)
		if err != nil {
			return conversation{}, err
		}
		said.prompt, said.calls = slices.Clone(before.prompt), maps.Clone(before.calls)
	}
	for i := range *req.Input {
		item := &(*req.Input)[i]
		if item.Type == "item_reference" {
			raw, err := s.store.item(key, item.ID)
			if err != nil {
				return conversation{}, err
			}
			if err := decode(raw, item); err != nil {
				return conversation{}, err
			}
		}
		if err := said.add(item); err != nil {
			return conversation{}, err
		}
	}
	return said, nil
}

// add appends an item. The result of a call that nobody made is refused.
func (c *conversation) add(item *inputItem) error {
	switch {
	case item.CallID == "":
	case !item.isResult():
		c.calls[item.CallID] = true
	case !c.calls[item.CallID]:
		return invalid("input", "", "No tool call found for function call output with call_id %s.", item.CallID)
	}
	var p rendering
	if item.Type == "" || item.Type == "message" {
		p.content(item.Role, item.Content)
	} else {
		p.item(item.Type, item.raw)
	}
	c.prompt = append(c.prompt, p.Bytes()...)
	return nil
}
