package store

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestALimitCountsWhatOthersSpendWhoKnewOfNone has a replica learn that a key and its
// team have no shared rows, before another one meets a limit of theirs.
func TestALimitCountsWhatOthersSpendWhoKnewOfNone(t *testing.T) {
	t.Parallel()
	for name, mine := range map[string][]ledger.Claim{
		"in batches without limits":                 nil,
		"in batches that decide on another's limit": ofKey("other", budget(money.USD)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			s := New(db)
			one, stopOne := startWriterOn(t, s, settings)
			defer stopOne()
			two, stopTwo := startWriter(t, db, settings)
			defer stopTwo()
			team := []ledger.Claim{{Account: ledger.AccountID{Kind: ledger.KindTeam, ID: "team"}, Who: "team", Limits: budget(money.USD)}}
			for range 3 {
				spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			}
			if len(s.plain.ids) != 4 {
				t.Errorf("%d accounts are known to have no shared rows, want the key's, the team's and their models'", len(s.plain.ids))
			}
			spend(t, two, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: team})
			spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			auditClean(t, s)
			spend(t, two, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofKey("k", budget(money.USD))})
			spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			auditClean(t, s)
			if len(s.plain.ids) == 0 {
				t.Error("nothing is known to have no shared rows")
			}
		})
	}
}
