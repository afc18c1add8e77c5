package openai

import (
	"net/http"
	"time"
)

// model is one model of the API.
type model struct {
	id      string // what is asked for
	dated   string // what answers name, and another id of it
	created int64  // date of release, in Unix seconds
	context int64  // tokens
	reasons bool
	writes  bool // reports tokens written to the prompt cache
}

// catalogue lists the models that are known. Those without a dated id answer
// with the one that was asked for.
var catalogue = []model{
	{id: "gpt-6-sol", dated: "gpt-6-sol", created: day(2026, 10, 14), context: 1_050_000, reasons: true, writes: true},
	{id: "gpt-5.4", dated: "gpt-5.4", created: day(2026, 3, 5), context: 1_050_000, reasons: true},
	{id: "gpt-5", dated: "gpt-5-2025-08-07", created: day(2025, 8, 7), context: 400_000, reasons: true},
	{id: "gpt-5-mini", dated: "gpt-5-mini-2025-08-07", created: day(2025, 8, 7), context: 400_000, reasons: true},
	{id: "o4-mini", dated: "o4-mini-2025-04-16", created: day(2025, 4, 16), context: 200_000, reasons: true},
	{id: "gpt-4.1-mini", dated: "gpt-4.1-mini-2025-04-14", created: day(2025, 4, 14), context: 1_047_576},
}

// findModel returns the model that id means.
func findModel(id string) (model, error) {
	for _, m := range catalogue {
		if m.id == id || m.dated == id {
			return m, nil
		}
	}
	return model{}, &apiError{
		Status: http.StatusNotFound, Code: "model_not_found",
		Message: "The model `" + id + "` does not exist or you do not have access to it.",
	}
}

// modelInfo is a model as the API shows it.
type modelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (m model) info() modelInfo {
	return modelInfo{ID: m.id, Object: "model", Created: m.created, OwnedBy: "system"}
}

func day(year int, month time.Month, day int) int64 {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()
}

// listModels serves GET /v1/models, which has no pages.
func (s *Server) listModels(c *call) error {
	list := make([]modelInfo, len(catalogue))
	for i, m := range catalogue {
		list[i] = m.info()
	}
	return writeJSON(c.w, struct {
		Object string      `json:"object"`
		Data   []modelInfo `json:"data"`
	}{"list", list})
}

// getModel serves GET /v1/models/{id}.
func (s *Server) getModel(c *call) error {
	id := c.r.PathValue("id")
	m, err := findModel(id)
	if err != nil {
		return &apiError{
			Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
			Message: "The model '" + id + "' does not exist",
		}
	}
	info := m.info()
	info.ID = id
	return writeJSON(c.w, info)
}
