package web

// anthropicModel is one model in the shape of Anthropic's GET /v1/models.
type anthropicModel struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

type anthropicPage struct {
	Data    []anthropicModel `json:"data"`
	HasMore bool             `json:"has_more"`
	FirstID *string          `json:"first_id"`
	LastID  *string          `json:"last_id"`
}

// anthropicModels puts all names on one page.
func anthropicModels(names []string) anthropicPage {
	p := anthropicPage{Data: []anthropicModel{}}
	for _, n := range names {
		// Anthropic's own word for a day that is not known.
		p.Data = append(p.Data, anthropicModel{Type: "model", ID: n, DisplayName: n, CreatedAt: "1970-01-01T00:00:00Z"})
	}
	if len(names) > 0 {
		p.FirstID, p.LastID = &names[0], &names[len(names)-1]
	}
	return p
}

// openAIModel is one model as LiteLLM lists it; created and owned_by are the
// same for all there.
type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

type openAIList struct {
	Data   []openAIModel `json:"data"`
	Object string        `json:"object"`
}

func openAIModels(names []string) openAIList {
	l := openAIList{Data: []openAIModel{}, Object: "list"}
	for _, n := range names {
		l.Data = append(l.Data, openAIModel{ID: n, Object: "model", Created: 1677610602, OwnedBy: "openai"})
	}
	return l
}
