package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Models is GET /v1/models: Anthropic's shape, in pages, for Anthropic's
// clients, which always send anthropic-version, and OpenAI's otherwise, as
// LiteLLM answers.
func (h *Handler) Models(w http.ResponseWriter, r *http.Request) {
	call := h.modelCall(r)
	names, err := h.svc.Models(r.Context(), call)
	if err == nil && call.API == proxy.Messages {
		var page anthropicPage
		if page, err = anthropicModels(names, r.URL.Query()); err == nil {
			h.json(w, call, page)
			return
		}
	}
	if err != nil {
		h.answer(w, r, call, err)
		return
	}
	h.json(w, call, openAIModels(names))
}

// Model is GET /v1/models/{id}. The id may hold slashes.
func (h *Handler) Model(w http.ResponseWriter, r *http.Request, id string) {
	call := h.modelCall(r)
	name, err := h.svc.Model(r.Context(), call, id)
	switch {
	case err != nil:
		h.answer(w, r, call, err)
	case call.API == proxy.Messages:
		h.json(w, call, anthropicModelOf(name))
	default:
		h.json(w, call, openAIModelOf(name))
	}
}

func (h *Handler) modelCall(r *http.Request) proxy.Call {
	if r.Header.Get("Anthropic-Version") != "" {
		return h.call(r, proxy.Messages)
	}
	return h.call(r, proxy.ChatCompletions)
}

func (h *Handler) json(w http.ResponseWriter, call proxy.Call, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(requestIDHeader(call.API), call.RequestID)
	w.Header().Set("X-Llmproxy-Request-Id", call.RequestID)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // the client is gone
}

// anthropicModel is one model in the shape of Anthropic's GET /v1/models.
type anthropicModel struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

// anthropicModelOf gives a model Anthropic's own word for a day of release that
// is not known.
func anthropicModelOf(name string) anthropicModel {
	return anthropicModel{Type: "model", ID: name, DisplayName: name, CreatedAt: "1970-01-01T00:00:00Z"}
}

type anthropicPage struct {
	Data    []anthropicModel `json:"data"`
	HasMore bool             `json:"has_more"`
	FirstID *string          `json:"first_id"`
	LastID  *string          `json:"last_id"`
}

// anthropicModels is the page that a query asks for: limit (1 to 1000, 20 unless
// given), after_id or before_id.
func anthropicModels(names []string, query url.Values) (anthropicPage, error) {
	limit := 20
	if text := query.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > 1000 {
			return anthropicPage{}, &proxy.Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: "limit: must be between 1 and 1000"}
		}
	}
	p := anthropicPage{Data: []anthropicModel{}}
	if after := query.Get("after_id"); after != "" {
		names = names[slices.Index(names, after)+1:]
	}
	if i := slices.Index(names, query.Get("before_id")); i >= 0 {
		names = names[:i]
		p.HasMore = len(names) > limit
		names = names[max(0, len(names)-limit):]
	} else if p.HasMore = len(names) > limit; p.HasMore {
		names = names[:limit]
	}
	for _, n := range names {
		p.Data = append(p.Data, anthropicModelOf(n))
	}
	if len(names) > 0 {
		p.FirstID, p.LastID = &names[0], &names[len(names)-1]
	}
	return p, nil
}

// openAIModel is one model as LiteLLM lists it; created and owned_by are the
// same for all there.
type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func openAIModelOf(name string) openAIModel {
	return openAIModel{ID: name, Object: "model", Created: 1677610602, OwnedBy: "openai"}
}

type openAIList struct {
	Data   []openAIModel `json:"data"`
	Object string        `json:"object"`
}

func openAIModels(names []string) openAIList {
	l := openAIList{Data: []openAIModel{}, Object: "list"}
	for _, n := range names {
		l.Data = append(l.Data, openAIModelOf(n))
	}
	return l
}
