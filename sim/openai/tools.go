package openai

import (
	"bytes"
	"encoding/json"
)

// tool keeps its JSON, which is what is counted and cached.
type tool struct {
	Type       string
	Name       string
	Parameters json.RawMessage
	raw        json.RawMessage
}

type function struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters"`
}

// UnmarshalJSON reads a tool of either API: Chat Completions wrap a function.
func (t *tool) UnmarshalJSON(p []byte) error {
	var fields struct {
		Type string `json:"type"`
		function
		Function *function `json:"function"`
	}
	if err := json.Unmarshal(p, &fields); err != nil {
		return err
	}
	f := fields.function
	if fields.Function != nil {
		f = *fields.Function
	}
	*t = tool{Type: fields.Type, Name: f.Name, Parameters: f.Parameters, raw: bytes.Clone(p)}
	return nil
}

// toolChoice is a word or names a tool.
type toolChoice struct {
	Mode string // none, auto, required, or empty
	Name string
}

// UnmarshalJSON reads a choice of either API.
func (t *toolChoice) UnmarshalJSON(p []byte) error {
	if len(p) > 0 && p[0] == '"' {
		return json.Unmarshal(p, &t.Mode)
	}
	var fields struct {
		Name     string   `json:"name"`
		Function function `json:"function"`
	}
	if err := json.Unmarshal(p, &fields); err != nil {
		return err
	}
	t.Name = fields.Name + fields.Function.Name // only one of them is there
	return nil
}

// chosenTool returns the call that the answer makes: of the script's tool, of
// the one that tool_choice names, or of the first. After a tool's result none.
func (t *turn) chosenTool() (toolCall, bool) {
	if t.answersTool || t.script.tool == "none" || t.choice.Mode == "none" {
		return toolCall{}, false
	}
	wanted := t.script.tool
	if wanted == "" {
		wanted = t.choice.Name
	}
	for _, tool := range t.tools {
		if tool.Type != "function" || (wanted != "" && tool.Name != wanted) {
			continue
		}
		call := toolCall{id: newID("call_", 12), itemID: newID("fc_", 24), name: tool.Name}
		call.pieces = cut(t.arguments(tool))
		return call, true
	}
	return toolCall{}, false
}

func (t *turn) arguments(tool tool) string {
	if t.script.input != nil {
		return string(t.script.input)
	}
	arguments, err := encode(sample(tool.Parameters))
	if err != nil || len(arguments) == 0 || arguments[0] != '{' {
		return "{}"
	}
	return string(arguments)
}

// sample returns a value that fits a JSON schema: the required properties of
// objects, the first choice of enumerations. What it cannot read becomes text.
func sample(raw json.RawMessage) any {
	var schema struct {
		Type       any                        `json:"type"`
		Const      any                        `json:"const"`
		Enum       []any                      `json:"enum"`
		AnyOf      []json.RawMessage          `json:"anyOf"`
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
		Items      json.RawMessage            `json:"items"`
		Minimum    json.Number                `json:"minimum"`
	}
	if json.Unmarshal(raw, &schema) != nil {
		return "sample"
	}
	switch {
	case schema.Const != nil:
		return schema.Const
	case len(schema.Enum) > 0:
		return schema.Enum[0]
	case len(schema.AnyOf) > 0:
		return sample(schema.AnyOf[0])
	}
	kind := schema.Type
	if several, ok := kind.([]any); ok && len(several) > 0 {
		kind = several[0]
	}
	switch kind {
	case "object":
		object := map[string]any{}
		for _, name := range schema.Required {
			object[name] = sample(schema.Properties[name])
		}
		return object
	case "array":
		return []any{sample(schema.Items)}
	case "integer", "number":
		if schema.Minimum != "" {
			return schema.Minimum
		}
		return 1
	case "boolean":
		return false
	case "null":
		return nil
	}
	return "sample"
}
