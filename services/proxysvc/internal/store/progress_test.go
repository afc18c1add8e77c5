package store

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// TestTheLastProgressOfABatchCounts has one request tell twice in a batch what it has
// used, and another one once.
func TestTheLastProgressOfABatchCounts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	log, err := s.OpenLog(t.Context(), "replica")
	if err != nil {
		t.Fatal(err)
	}
	one, two := &ledger.Admission{Request: request("k", "")}, &ledger.Admission{Request: request("k", "")}
	progress := func(of *ledger.Admission, n int64) *ledger.Progress {
		return &ledger.Progress{
			RequestID: of.RequestID, MessageID: "msg", Cost: money.NanoUSD(n + 6), Usage: pricing.Usage{
				InputTokens: n, OutputTokens: n + 1, CacheReadTokens: n + 2, CacheWrite5mTokens: n + 3, CacheWrite1hTokens: n + 4, WebSearchRequests: n + 5,
			},
		}
	}
	for i, b := range []*ledger.Batch{
		{Admissions: []*ledger.Admission{one, two}},
		{Progress: []*ledger.Progress{progress(one, 10), progress(two, 30), progress(one, 20)}},
	} {
		b.LogID, b.Number, b.FirstSeq = log.LogID, int64(i+1), 1
		b.Decide = func(map[ledger.AccountID]*ledger.Account, time.Time) []*ledger.Admission { return b.Admissions }
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for of, n := range map[*ledger.Admission]int64{one: 20, two: 30} {
		rows, _ := db.Query(t.Context(), `
			select message_id = 'msg' and (input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens,
			  cache_write_1h_input_tokens, web_search_requests, cost_nano_usd) = ($2::bigint, $2 + 1, $2 + 2, $2 + 3, $2 + 4, $2 + 5, $2 + 6)
			from spend.open_requests where request_id = $1`, of.RequestID, n)
		if noted, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]); err != nil || !noted {
			t.Errorf("the usage from %d on: noted %t, %v", n, noted, err)
		}
	}
}
