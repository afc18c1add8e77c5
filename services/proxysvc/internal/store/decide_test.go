package store

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestADecisionWaitsForTheOneBefore has a batch of another replica come while one is
// being decided: it sees what that one took.
func TestADecisionWaitsForTheOneBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	one, two := New(db), New(db)
	claims := ofKey("k", budget(100))
	if err := one.EnsureAccounts(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	decide := func(s *Store, while func()) (held int64) {
		log, err := s.OpenLog(t.Context(), "replica")
		if err != nil {
			t.Error(err)
			return 0
		}
		a := &ledger.Admission{Request: request("k", ""), Hold: 60, Claims: claims}
		b := &ledger.Batch{LogID: log.LogID, Number: 1, FirstSeq: 1, Admissions: []*ledger.Admission{a}}
		b.Decide = func(accounts map[ledger.AccountID]*ledger.Account, now time.Time) []*ledger.Admission {
			held = int64(accounts[claims[0].Account].Held)
			while()
			if r := ledger.Admit(a, accounts, now); r != nil {
				return nil
			}
			return b.Admissions
		}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Error(err)
		}
		return held
	}
	second := make(chan int64, 1)
	decide(one, func() {
		go func() { second <- decide(two, func() {}) }()
		for len(second) == 0 && !pgtest.SomeoneWaits(t, db) {
		}
	})
	if held := <-second; held != 60 {
		t.Errorf("the second decision found %d held, want the 60 of the first", held)
	}
}
