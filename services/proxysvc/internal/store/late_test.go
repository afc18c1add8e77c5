package store

import (
	"context"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestABatchThatComesLateIsNotWritten loses the connection of a batch before Postgres
// has begun with it, asks what became of it, and has it come then: by now its rows
// are in another batch.
func TestABatchThatComesLateIsNotWritten(t *testing.T) {
	t.Parallel()
	s := New(pgtest.New(t, Schema, Migrations))
	log, err := s.OpenLog(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	batch := func(number int64) *ledger.Batch {
		end := settlement(request("k", "team"), 42)
		end.Unadmitted = true
		return &ledger.Batch{
			LogID: log.LogID, Number: number, FirstSeq: 1, Settlements: []*ledger.Settlement{end},
			Decide: func(map[ledger.AccountID]*ledger.Account, time.Time) []*ledger.Admission { return nil },
		}
	}
	var read ledger.Open
	for range 2 { // the first answer may be lost
		if read, err = s.ReadLog(t.Context(), log.LogID, 1); err != nil || read.Batch == 1 {
			t.Fatalf("ReadLog = %+v, %v, want that batch 1 is not there", read, err)
		}
	}
	if err := s.Commit(t.Context(), batch(1)); err == nil {
		t.Error("a batch was written that came late")
	}
	next := batch(read.Batch + 1)
	if err := s.Commit(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadLog(t.Context(), log.LogID, next.Number); err != nil || got.Batch != next.Number || got.LastSeq != 1 {
		t.Errorf("ReadLog = %+v, %v, want batch %d with 1 row", got, err, next.Number)
	}
	if a := auditClean(t, s); a.Rows != 1 || a.Cost != 42 {
		t.Errorf("audit = %+v", a)
	}
}

// unheard loses the answer to the first admission, and another replica fences the log
// before its writer can ask what became of it.
type unheard struct {
	*Store
	other int64 // the other replica's log
	lost  bool
}

// Commit implements ledger.Store.
func (u *unheard) Commit(ctx context.Context, b *ledger.Batch) error {
	err := u.Store.Commit(ctx, b)
	if err != nil || u.lost || len(b.Admissions) == 0 {
		return err
	}
	u.lost = true
	if _, err := u.TakeOver(ctx, u.other, 0); err != nil {
		return err
	}
	if err := u.CloseLog(ctx, u.other); err != nil { // it leaves the request to the next
		return err
	}
	return fault.Errorf(fault.Unavailable, "the connection is gone")
}

// TestABatchThatWasWrittenBeforeItsLogWasFencedIsNotDecidedAgain admits a request that
// takes up its whole budget: decided again, it would find no room beside itself.
func TestABatchThatWasWrittenBeforeItsLogWasFencedIsNotDecidedAgain(t *testing.T) {
	t.Parallel()
	s := New(pgtest.New(t, Schema, Migrations))
	other, err := s.OpenLog(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	set := settings
	set.Silence = 100 * time.Millisecond
	w, stop := startWriterOn(t, &unheard{Store: s, other: other.LogID}, set)
	r := request("k", "team")
	ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 100, Claims: ofKey("k", budget(100))})
	if err != nil {
		t.Fatal(err)
	}
	if err := ticket.Settle(t.Context(), settlement(r, 42)); err != nil {
		t.Error(err)
	}
	stop()
	if a := auditClean(t, s); a.Cost != 42 {
		t.Errorf("audit = %+v, want 42 in all", a)
	}
}
