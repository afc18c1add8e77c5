package openai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// input is the input of a response: a text or items.
type input []inputItem

// inputItem is a message, a call, a call's result, reasoning or a reference. It
// keeps its JSON.
type inputItem struct {
	ID      string
	Type    string // empty: message
	Role    string
	Content content
	CallID  string
	raw     json.RawMessage
}

// UnmarshalJSON reads an input; a text becomes a message of the user.
func (in *input) UnmarshalJSON(p []byte) error {
	if len(p) == 0 || p[0] != '"' {
		return json.Unmarshal(p, (*[]inputItem)(in))
	}
	var text content
	if err := json.Unmarshal(p, &text); err != nil {
		return err
	}
	*in = input{{Role: "user", Content: text}}
	return nil
}

// UnmarshalJSON reads an item. Only messages have a content that is understood.
func (i *inputItem) UnmarshalJSON(p []byte) error {
	var fields struct {
		ID      string          `json:"id"`
		Type    string          `json:"type"`
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
		CallID  string          `json:"call_id"`
	}
	if err := json.Unmarshal(p, &fields); err != nil {
		return err
	}
	*i = inputItem{ID: fields.ID, Type: fields.Type, Role: fields.Role, CallID: fields.CallID, raw: bytes.Clone(p)}
	if i.Role == "" || fields.Content == nil {
		return nil
	}
	return json.Unmarshal(fields.Content, &i.Content)
}

// isResult reports whether the item is the result of a call, of whatever kind.
func (i *inputItem) isResult() bool { return strings.HasSuffix(i.Type, "_output") }

func (in input) answersTool() bool { return len(in) > 0 && in[len(in)-1].isResult() }

// scriptText is the text of the last user message, unless a tool's result came
// after it.
func (in input) scriptText() string {
	for _, item := range slices.Backward(in) {
		switch {
		case item.isResult():
			return ""
		case item.Role == "user":
			return item.Content.text()
		}
	}
	return ""
}
