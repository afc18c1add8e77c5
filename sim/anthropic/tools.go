package anthropic

import (
	"encoding/json"
	"strings"
)

// toolUse is a call of a client's tool.
type toolUse struct {
	name  string
	input json.RawMessage
}

// searches returns how many web searches the answer makes: those of the script
// if the request brings the tool and is not itself a tool's result.
func (p *prompt) searches() int64 {
	if p.answersTool() {
		return 0
	}
	for _, t := range p.Tools {
		if strings.HasPrefix(t.Type, "web_search_") {
			return p.script.webSearches
		}
	}
	return 0
}

// chosenTool returns the call that the answer makes: of the script's tool, of
// the one that tool_choice names, or of the first. After a tool's result none.
func (p *prompt) chosenTool() (toolUse, bool) {
	if p.answersTool() || p.script.tool == "none" || (p.ToolChoice != nil && p.ToolChoice.Type == "none") {
		return toolUse{}, false
	}
	wanted := p.script.tool
	if wanted == "" && p.ToolChoice != nil {
		wanted = p.ToolChoice.Name
	}
	for _, t := range p.Tools {
		if t.isServer() || (wanted != "" && t.Name != wanted) {
			continue
		}
		return toolUse{t.Name, p.toolInput(t)}, true
	}
	return toolUse{}, false
}

func (p *prompt) toolInput(t tool) json.RawMessage {
	if p.script.input != nil {
		return p.script.input
	}
	input, err := encode(sample(t.InputSchema))
	if err != nil || len(input) == 0 || input[0] != '{' {
		return json.RawMessage("{}")
	}
	return input
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
