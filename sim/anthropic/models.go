package anthropic

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// model is one model of the API. Limits are in tokens.
type model struct {
	id        string   // what answers name
	aliases   []string // other ids that mean it
	name      string
	created   string // date of release
	context   int
	maxOutput int
	geo       bool // takes inference_geo
	retired   bool // still served here, but not listed
}

const (
	million = 1_000_000
	k200    = 200_000
)

// catalogue lists the models, newest first, as GET /v1/models does. Ids and
// limits are those of the price table (with the 1M beta, where there is one); a
// model with a dated id answers with it.
var catalogue = []model{
	{id: "claude-haiku-5-5", name: "Claude Haiku 5.5", created: "2026-10-07", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-sonnet-5-5", name: "Claude Sonnet 5.5", created: "2026-10-01", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-opus-5-5", name: "Claude Opus 5.5", created: "2026-09-22", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-fable-5-1", name: "Claude Fable 5.1", created: "2026-09-01", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-mythos-5-1", name: "Claude Mythos 5.1", created: "2026-09-01", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-opus-5", name: "Claude Opus 5", created: "2026-07-21", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-sonnet-5", name: "Claude Sonnet 5", created: "2026-06-30", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-fable-5", name: "Claude Fable 5", created: "2026-06-09", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-mythos-5", name: "Claude Mythos 5", created: "2026-06-09", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-opus-4-8", name: "Claude Opus 4.8", created: "2026-05-28", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-opus-4-7", aliases: []string{"claude-opus-4-7-20260416"}, name: "Claude Opus 4.7", created: "2026-04-16", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-sonnet-4-6", name: "Claude Sonnet 4.6", created: "2026-02-17", context: million, maxOutput: 64_000, geo: true},
	{id: "claude-opus-4-6", aliases: []string{"claude-opus-4-6-20260205"}, name: "Claude Opus 4.6", created: "2026-02-05", context: million, maxOutput: 128_000, geo: true},
	{id: "claude-opus-4-5-20251101", aliases: []string{"claude-opus-4-5"}, name: "Claude Opus 4.5", created: "2025-11-24", context: k200, maxOutput: 64_000},
	{id: "claude-haiku-4-5-20251001", aliases: []string{"claude-haiku-4-5"}, name: "Claude Haiku 4.5", created: "2025-10-15", context: k200, maxOutput: 64_000},
	{id: "claude-sonnet-4-5-20250929", aliases: []string{"claude-sonnet-4-5"}, name: "Claude Sonnet 4.5", created: "2025-09-29", context: million, maxOutput: 64_000},
	{id: "claude-opus-4-1-20250805", aliases: []string{"claude-opus-4-1"}, name: "Claude Opus 4.1", created: "2025-08-05", context: k200, maxOutput: 32_000, retired: true},
	{id: "claude-opus-4-20250514", aliases: []string{"claude-opus-4-0"}, name: "Claude Opus 4", created: "2025-05-22", context: k200, maxOutput: 32_000, retired: true},
	{id: "claude-sonnet-4-20250514", aliases: []string{"claude-sonnet-4-0"}, name: "Claude Sonnet 4", created: "2025-05-22", context: million, maxOutput: 64_000, retired: true},
	{id: "claude-3-7-sonnet-20250219", name: "Claude Sonnet 3.7", created: "2025-02-24", context: k200, maxOutput: 64_000, retired: true},
	{id: "claude-3-5-sonnet-20241022", name: "Claude Sonnet 3.5", created: "2024-10-22", context: k200, maxOutput: 8192, retired: true},
	{id: "claude-3-5-haiku-20241022", name: "Claude Haiku 3.5", created: "2024-10-22", context: k200, maxOutput: 8192, retired: true},
	{id: "claude-3-5-sonnet-20240620", name: "Claude Sonnet 3.5 (old)", created: "2024-06-20", context: k200, maxOutput: 8192, retired: true},
	{id: "claude-3-haiku-20240307", name: "Claude Haiku 3", created: "2024-03-07", context: k200, maxOutput: 4096, retired: true},
	{id: "claude-3-opus-20240229", name: "Claude Opus 3", created: "2024-02-29", context: k200, maxOutput: 4096, retired: true},
}

// findModel returns the model that id means.
func findModel(id string) (model, error) {
	for _, m := range catalogue {
		if m.id == id || slices.Contains(m.aliases, id) {
			return m, nil
		}
	}
	return model{}, &apiError{Status: http.StatusNotFound, Message: "model: " + id}
}

// modelInfo is a model as the API shows it.
type modelInfo struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

func (m model) info() modelInfo {
	return modelInfo{Type: "model", ID: m.id, DisplayName: m.name, CreatedAt: m.created + "T00:00:00Z"}
}

func (s *Server) getModel(c *call) error {
	m, err := findModel(c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.json(m.info())
}

// modelPage is Anthropic's page shape.
type modelPage struct {
	Data    []modelInfo `json:"data"`
	HasMore bool        `json:"has_more"`
	FirstID *string     `json:"first_id"`
	LastID  *string     `json:"last_id"`
}

func (s *Server) listModels(c *call) error {
	query := c.r.URL.Query()
	limit, err := pageLimit(query)
	if err != nil {
		return err
	}
	var all []modelInfo
	for _, m := range catalogue {
		if !m.retired {
			all = append(all, m.info())
		}
	}
	page := modelPage{}
	page.Data, page.HasMore = window(all, limit, query.Get("after_id"), query.Get("before_id"))
	if len(page.Data) > 0 {
		page.FirstID, page.LastID = &page.Data[0].ID, &page.Data[len(page.Data)-1].ID
	}
	return c.json(page)
}

func pageLimit(query url.Values) (int, error) {
	text := query.Get("limit")
	if text == "" {
		return 20, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > 1000 {
		return 0, invalid("limit: must be between 1 and 1000")
	}
	return limit, nil
}

// window returns the limit models after after, or those just before before. An
// id that is not listed gives an empty page.
func window(all []modelInfo, limit int, after, before string) (page []modelInfo, more bool) {
	at := func(id string) int {
		return slices.IndexFunc(all, func(m modelInfo) bool { return m.ID == id })
	}
	switch {
	case after != "" && at(after) < 0, before != "" && at(before) < 0:
		return []modelInfo{}, false
	case before != "":
		all = all[:at(before)]
		first := max(len(all)-limit, 0)
		return all[first:], first > 0
	case after != "":
		all = all[at(after)+1:]
	}
	last := min(limit, len(all))
	return all[:last:last], last < len(all)
}

// samplingGone is the first API version that refuses temperature, top_p and top_k.
var samplingGone = time.Date(2026, 10, 21, 0, 0, 0, 0, time.UTC)

// refusesSampling reports whether version, a date, is samplingGone or later.
func refusesSampling(version string) bool {
	date, err := time.Parse(time.DateOnly, version)
	return err == nil && !date.Before(samplingGone)
}
