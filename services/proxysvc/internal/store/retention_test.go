package store

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// TestOldDaysLeaveAndTheSumsStay detaches the day before: the audit still agrees,
// the totals still know it, and a reader that is behind is told.
func TestOldDaysLeaveAndTheSumsStay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	yesterday := today.Add(-24 * time.Hour)
	if err := s.EnsurePartitions(t.Context(), yesterday, 3); err != nil {
		t.Fatal(err)
	}
	w, stop := startWriter(t, db, settings)
	for n, ended := range []time.Time{yesterday.Add(time.Hour), yesterday.Add(2 * time.Hour), today.Add(time.Minute)} {
		ticket, r := admit(t, w, "k", 100)
		set := settlement(r, 7)
		set.EndedAt = ended
		if err := ticket.Settle(t.Context(), set); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
	stop()
	if n, err := s.Detach(t.Context(), yesterday); err != nil || n != 0 {
		t.Errorf("%d days left before their time, %v", n, err)
	}
	if n, err := s.Detach(t.Context(), today); err != nil || n != 0 {
		t.Errorf("%d days left before they were counted, %v", n, err)
	}
	if _, err := s.Count(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Detach(t.Context(), today); err != nil || n != 1 {
		t.Fatalf("%d days left, %v, want 1", n, err)
	}
	if a := auditClean(t, s); a.Rows != 3 || a.Cost != 21 || len(a.Teams) != 1 || a.Teams[0].Cost != 21 {
		t.Errorf("audit = %+v", a)
	}
	sum, err := s.Summary(t.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: "k"})
	if err != nil || sum.Spent != 21 {
		t.Errorf("key %+v, %v", sum, err)
	}
	if _, _, err := s.ReadLogRows(t.Context(), 1, 0, 10); err == nil {
		t.Error("a reader that is behind was not told")
	}
	if _, rows, err := s.ReadLogRows(t.Context(), 1, 2, 10); err != nil || len(rows) != 1 {
		t.Errorf("a reader that is not behind: %d rows, %v", len(rows), err)
	}
	var kept int
	if err := db.QueryRow(t.Context(), `select count(*) from spend.spend_logs_`+yesterday.Format("20060102")).Scan(&kept); err != nil || kept != 2 {
		t.Errorf("the detached table has %d rows, %v", kept, err)
	}
}

func TestRowsWithoutADayAreCounted(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	ticket, r := admit(t, w, "k", 100) // no partition was made
	if err := ticket.Settle(t.Context(), settlement(r, 7)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Unplaced(t.Context()); err != nil || n != 1 {
		t.Errorf("%d rows without a day, %v", n, err)
	}
}

// TestLiteLLMsView reads a row as readers of LiteLLM's database do.
func TestLiteLLMsView(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	if why, err := s.PublishView(t.Context()); err != nil || why != "" {
		t.Fatalf("%q, %v", why, err)
	}
	if _, err := s.PublishView(t.Context()); err != nil { // every start does it
		t.Fatal(err)
	}
	w, stop := startWriter(t, db, settings)
	defer stop()
	ticket, r := admit(t, w, "k", 100)
	set := settlement(r, 1_500_000)
	set.Usage = pricing.Usage{InputTokens: 10, CacheReadTokens: 20, CacheWrite5mTokens: 30, CacheWrite1hTokens: 40, OutputTokens: 5}
	set.Client = map[string]string{"session_id": "ses_1"}
	if err := ticket.Settle(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	var row struct {
		prompt, completion, total int64
		spend                     float64
		key, user, team, session  string
		status                    string
		start                     time.Time
		metadata                  []byte
	}
	err := db.QueryRow(t.Context(), `
		select prompt_tokens, completion_tokens, total_tokens, spend, api_key, "user", team_id, session_id, status, "startTime", metadata
		from public."LiteLLM_SpendLogs" where request_id = $1`, r.RequestID).
		Scan(&row.prompt, &row.completion, &row.total, &row.spend, &row.key, &row.user, &row.team, &row.session, &row.status, &row.start, &row.metadata)
	if err != nil {
		t.Fatal(err)
	}
	if row.prompt != 100 || row.completion != 5 || row.total != 105 || row.spend != 0.0015 || row.key != "t" || row.user != "session" ||
		row.team != "team" || row.session != "ses_1" || row.status != "success" || row.start.Sub(r.StartedAt.UTC()).Abs() > time.Second {
		t.Errorf("row %+v", row)
	}
	var metadata struct {
		Extra struct {
			Creation int64 `json:"cache_creation_input_tokens"`
		} `json:"additional_usage_values"`
	}
	if err := json.Unmarshal(row.metadata, &metadata); err != nil || metadata.Extra.Creation != 70 {
		t.Errorf("metadata %s, %v", row.metadata, err)
	}
}
