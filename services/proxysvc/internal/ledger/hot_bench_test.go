package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/hotpath"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
)

// nowhere is a store that takes everything and keeps nothing, so that what is
// measured is the writer.
type nowhere struct{ Store }

func (nowhere) OpenLog(context.Context, string) (Open, error) { return Open{LogID: 1}, nil }

func (nowhere) Commit(_ context.Context, b *Batch) error {
	b.Decide(nil, noon)
	return nil
}

func (nowhere) TakeOver(context.Context, int64, time.Duration) ([]*Settlement, error) {
	return nil, nil
}
func (nowhere) FreeResiduals(context.Context) error    { return nil }
func (nowhere) CloseLogs(context.Context, int64) error { return nil }
func (nowhere) CloseLog(context.Context, int64) error  { return nil }

// quiet is told and says nothing.
type quiet struct{}

func (quiet) Committed(int, int, time.Duration) {}
func (quiet) Trouble(string, error)             {}

// hot are the operations that every request runs.
func hot(tb testing.TB) []hotpath.Operation {
	tb.Helper()
	w := NewWriter(nowhere{}, nil, nil, Settings{Heartbeat: time.Hour, AdmitTimeout: time.Minute}, quiet{})
	go w.Run(tb.Context()) //nolint:errcheck // Stop ends it
	tb.Cleanup(func() { w.Stop(); <-w.Done() })
	limited := admission(1, 1, budget(1<<60), budget(1<<60))
	accounts := map[AccountID]*Account{key: {}, team: {}}
	a := &Admission{Request: Request{RequestID: "r", KeyID: "k", TeamID: "t", UserID: "u", Model: "m", ModelGroup: "m", StartedAt: noon}, Hold: 1}
	enter := func() *Ticket {
		ticket, err := w.Admit(tb.Context(), a)
		if err != nil {
			tb.Fatal(err)
		}
		return ticket
	}
	book, _, err := journal.Open[Record](tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { book.Close() }) // nothing is in it
	noting := NewWriter(nowhere{}, book, nil, Settings{Instance: "bench"}, quiet{})
	return []hotpath.Operation{
		{Name: "Intend", Allocs: 1, Run: func() {
			i := noting.intend(a)
			if i == nil {
				tb.Fatal("not noted")
			}
			i.Drop()
		}},
		{Name: "Decide", Allocs: 14, Run: func() {
			if r := Admit(limited, accounts, noon); r != nil {
				tb.Fatal(r)
			}
		}},
		{Name: "AdmitAndSettle", Allocs: 25, Run: func() {
			if err := enter().Settle(tb.Context(), &Settlement{Request: a.Request, Status: Completed, EndedAt: noon}); err != nil {
				tb.Fatal(err)
			}
		}},
	}
}

func BenchmarkLedger(b *testing.B) { hotpath.Bench(b, hot(b)) }
