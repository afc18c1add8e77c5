package billing

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestParseMarkup(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"3": "3", "1.25": "1.25", "0.000001": "0.000001", "1000": "1000", "3.10": "3.1"} {
		m, err := ParseMarkup(in)
		if err != nil || m.String() != want {
			t.Errorf("ParseMarkup(%q) = %s, %v, want %s", in, m, err, want)
		}
	}
	for _, in := range []string{"", "0", "-3", "1000.000001", "1.0000001", "three", "NaN", "1e99"} {
		if m, err := ParseMarkup(in); err == nil {
			t.Errorf("ParseMarkup(%q) = %s, want an error", in, m)
		}
	}
}

func TestDraftRatesOrQuarantinesEveryRow(t *testing.T) {
	t.Parallel()
	whole := Row{
		LogID: 7, RequestID: "req_1", TeamID: "acme", UserID: "session_1", Model: "claude", CostNanoUSD: 105, EndedAt: noon,
		Usage: Usage{InputTokens: 1, OutputTokens: 2, CacheReadInputTokens: 3, CacheWrite5mInputTokens: 4, CacheWrite1hInputTokens: 5},
	}
	tests := []struct {
		name   string
		change func(*Row)
		reason string
	}{
		{"a whole row is billed", func(*Row) {}, ""},
		{"a row that cost nothing is billed too", func(r *Row) { r.CostNanoUSD = 0 }, ""},
		{"a correction is billed", func(r *Row) { r.CostNanoUSD = -105 }, ""},
		{"a row without a team", func(r *Row) { r.TeamID = "" }, "no team"},
		{"a row without a request", func(r *Row) { r.RequestID = "" }, "no request_id"},
		{"a row without an end", func(r *Row) { r.EndedAt = time.Time{} }, "no ended_at"},
		{"a row whose price does not fit", func(r *Row) { r.CostNanoUSD = math.MaxInt64/3 + 1 }, "cost × 3 is out of range"},
		{"the smallest amount there is", func(r *Row) { r.CostNanoUSD = math.MinInt64 }, "cost × 3 is out of range"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			row := whole
			tt.change(&row)
			d := tariff{standard: mustMarkup(t, "3")}.Draft(Page{LogID: 7, Rows: []Row{row}}, noon)
			if tt.reason != "" {
				if diff := cmp.Diff([]Quarantined{{row, tt.reason}}, d.Quarantined); diff != "" || len(d.Events) != 0 {
					t.Errorf("quarantined (-want +got):\n%s and %d events", diff, len(d.Events))
				}
				return
			}
			want := []Event{{
				IdempotencyKey: "llm:req_1", OrganizationID: "acme", EventType: "llm", Quantity: 15,
				CostNanoUSD: row.CostNanoUSD, PriceNanoUSD: 3 * row.CostNanoUSD, Markup: "3", SessionIDs: []string{"session_1"},
				LogID: 7, Model: "claude", OccurredAt: noon, CreatedAt: noon, Row: row,
			}}
			if diff := cmp.Diff(want, d.Events); diff != "" || len(d.Quarantined) != 0 {
				t.Errorf("events (-want +got):\n%s and quarantined %v", diff, d.Quarantined)
			}
		})
	}
}

func TestPageCheckRefusesHoles(t *testing.T) {
	t.Parallel()
	rows := func(seqs ...int64) (out []Row) {
		for _, s := range seqs {
			out = append(out, Row{LogID: 1, Seq: s})
		}
		return out
	}
	tests := []struct {
		name string
		page Page
		ok   bool
	}{
		{"rows that follow the cursor", Page{LogID: 1, AfterSeq: 4, LastSeq: 9, Rows: rows(5, 6)}, true},
		{"no rows at the end of the log", Page{LogID: 1, AfterSeq: 4, LastSeq: 4}, true},
		{"a first row that does not follow", Page{LogID: 1, AfterSeq: 4, LastSeq: 9, Rows: rows(6, 7)}, false},
		{"a row that was read before", Page{LogID: 1, AfterSeq: 4, LastSeq: 9, Rows: rows(4, 5)}, false},
		{"a hole inside", Page{LogID: 1, AfterSeq: 4, LastSeq: 9, Rows: rows(5, 7)}, false},
		{"a row of another log", Page{LogID: 2, AfterSeq: 4, LastSeq: 9, Rows: rows(5)}, false},
		{"no rows although the log has more", Page{LogID: 1, AfterSeq: 4, LastSeq: 9}, false},
		{"a log that is shorter than what was billed", Page{LogID: 1, AfterSeq: 4, LastSeq: 3}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.page.Check(); (err == nil) != tt.ok {
				t.Errorf("Check() = %v, want ok: %t", err, tt.ok)
			}
		})
	}
}

func mustMarkup(t *testing.T, s string) Markup {
	t.Helper()
	m, err := ParseMarkup(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
