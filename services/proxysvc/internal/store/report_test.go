package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// reported has a test read a ledger of three days that two logs have written, with none,
// some, and all of its rows in the totals.
func reported(t *testing.T, read func(t *testing.T, s *Store, today time.Time)) {
	t.Helper()
	for _, counted := range []int{0, 2, 4, 6} {
		t.Run(fmt.Sprintf("%d rows counted", counted), func(t *testing.T) {
			t.Parallel()
			s, today := sixRows(t, counted)
			read(t, s, today)
		})
	}
}

func sixRows(t *testing.T, counted int) (*Store, time.Time) {
	t.Helper()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	today := time.Date(2026, 5, 12, 0, 0, 0, 0, time.UTC) // a Tuesday
	if err := s.EnsurePartitions(t.Context(), today.AddDate(0, 0, -8), 10); err != nil {
		t.Fatal(err)
	}
	at := func(days int, key, team, model string, cost money.NanoUSD, status ledger.Status) *ledger.Settlement {
		r := request(key, team)
		r.Model, r.ModelGroup, r.Token, r.Tags = model, "g-"+model, "token-"+key, []string{"x", model, "x"}
		return &ledger.Settlement{
			Request: r, Cost: cost, Status: status, EndedAt: today.AddDate(0, 0, days).Add(time.Hour), Unadmitted: true,
			Usage: pricing.Usage{InputTokens: 1, OutputTokens: 2},
		}
	}
	n := 0
	for _, settled := range [][]*ledger.Settlement{
		{at(-8, "k1", "t1", "m1", 1, ledger.Completed), at(-1, "k1", "t1", "m1", 2, ledger.Completed), at(-1, "k1", "t1", "m2", 4, ledger.Failed)},
		{at(-1, "k1", "t1", "m1", 8, ledger.Completed), at(0, "k2", "t2", "m2", 16, ledger.Aborted), at(0, "k3", "t\n1", "m1", 32, ledger.Completed)},
	} {
		open, err := s.OpenLog(t.Context(), "test")
		if err != nil {
			t.Fatal(err)
		}
		for i, settlement := range settled {
			n++
			err = s.Commit(t.Context(), &ledger.Batch{
				LogID: open.LogID, Number: int64(i + 1), FirstSeq: int64(i + 1), Settlements: []*ledger.Settlement{settlement},
				Decide: func(map[ledger.AccountID]*ledger.Account, time.Time) []*ledger.Admission { return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if n > counted {
				continue
			}
			if of, err := s.Count(t.Context(), 0); err != nil || of != 1 {
				t.Fatalf("%d rows counted, %v, want 1", of, err)
			}
		}
	}
	return s, today
}

// line is a use in short.
type line struct {
	ID               string
	Day              int
	Requests, Failed int64
	Cost             money.NanoUSD
}

func lines(uses []ledger.Use) []line {
	out := []line{}
	for _, u := range uses {
		l := line{u.ID, u.Day.Day(), u.Requests, u.Failed, u.Cost}
		if u.Day.IsZero() {
			l.Day = 0
		}
		out = append(out, l)
	}
	return out
}

func TestUsesAreSummedOverLogs(t *testing.T) {
	t.Parallel()
	reported(t, func(t *testing.T, s *Store, today time.Time) {
		week := ledger.Days{From: today.AddDate(0, 0, -2), To: today}
		check := func(name string, want []line, uses []ledger.Use, err error) {
			t.Helper()
			if diff := cmp.Diff(want, lines(uses)); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
		}
		uses, err := s.Uses(t.Context(), ledger.UseQuery{Kind: ledger.KindKey, Days: week})
		check("all keys", []line{{"k1", 11, 3, 1, 14}, {"k2", 12, 1, 1, 16}, {"k3", 12, 1, 0, 32}}, uses, err)
		uses, err = s.Uses(t.Context(), ledger.UseQuery{Kind: ledger.KindKey, IDs: []string{"k1", "k2\x00"}})
		check("one key of all time", []line{{"k1", 4, 1, 0, 1}, {"k1", 11, 3, 1, 14}, {"k2", 12, 1, 1, 16}}, uses, err)
		uses, err = s.Uses(t.Context(), ledger.UseQuery{Kind: ledger.KindTag, Days: week})
		check("all tags", []line{{"m1", 11, 2, 0, 10}, {"m2", 11, 1, 1, 4}, {"x", 11, 3, 1, 14}, {"m1", 12, 1, 0, 32}, {"m2", 12, 1, 1, 16}, {"x", 12, 2, 1, 48}}, uses, err)
		uses, err = s.TeamModels(t.Context(), []string{"t1"}, week)
		check("a team's models", []line{{"t1\nm1", 11, 2, 0, 10}, {"t1\nm2", 11, 1, 1, 4}}, uses, err)
		uses, err = s.TeamModels(t.Context(), nil, week)
		check("no team's models", []line{}, uses, err)
		uses, err = s.Top(t.Context(), ledger.KindKey, ledger.Days{}, 2)
		check("the dearest", []line{{"k3", 0, 1, 0, 32}, {"k2", 0, 1, 1, 16}}, uses, err)
	})
}

func TestSlicesAndTokensComeFromRows(t *testing.T) {
	t.Parallel()
	reported(t, func(t *testing.T, s *Store, today time.Time) {
		slices, err := s.Slices(t.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: "k1"}, ledger.Days{From: today.AddDate(0, 0, -1)})
		if err != nil || len(slices) != 2 {
			t.Fatalf("%v, %v", slices, err)
		}
		got := slices[0]
		if diff := cmp.Diff([]line{{"m1", 11, 2, 0, 10}, {"m2", 11, 1, 1, 4}}, lines([]ledger.Use{got.Use, slices[1].Use})); diff != "" ||
			got.Token != "token-k1" || got.KeyID != "k1" || got.UserID != "session" || got.ModelGroup != "g-m1" || got.Usage.OutputTokens != 4 {
			t.Errorf("%+v (-want +got):\n%s", got, diff)
		}
		slices, err = s.Slices(t.Context(), ledger.AccountID{Kind: ledger.KindUser, ID: "session"}, ledger.Days{To: today.AddDate(0, 0, -8)})
		if err != nil || len(slices) != 1 || slices[0].Cost != 1 {
			t.Errorf("a session: %v, %v", slices, err)
		}
		tokens, err := s.Tokens(t.Context(), []string{"k1", "k3", "nobody"})
		if diff := cmp.Diff(map[string]string{"k1": "token-k1", "k3": "token-k3"}, tokens); diff != "" || err != nil {
			t.Errorf("tokens: %v (-want +got):\n%s", err, diff)
		}
	})
}

func TestBalancesAreThoseOfTheWindow(t *testing.T) {
	t.Parallel()
	reported(t, func(t *testing.T, s *Store, today time.Time) {
		query := func(kind, id, window string) ledger.BalanceQuery {
			return ledger.BalanceQuery{AccountID: ledger.AccountID{Kind: kind, ID: id}, Window: window}
		}
		got, err := s.Balances(t.Context(), today.Add(2*time.Hour), []ledger.BalanceQuery{
			query("key", "k1", ""), query("team", "t1", "7d"), query("user", "session", ""), query("key", "nobody", "1d"), query("key", "k2", "1h"),
		})
		want := []ledger.Balance{
			{Spent: 15},
			{Spent: 14, ResetsAt: today.AddDate(0, 0, 6)},
			{Spent: 63},
			{ResetsAt: today.AddDate(0, 0, 1)},
			{ResetsAt: today.Add(3 * time.Hour)},
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

func TestRowsAreCountedAsTheyAreFound(t *testing.T) {
	t.Parallel()
	reported(t, func(t *testing.T, s *Store, today time.Time) {
		cost, failed := money.NanoUSD(4), true
		for name, tt := range map[string]struct {
			q    ledger.RowQuery
			want []money.NanoUSD // the costs
		}{
			"all, newest first":      {ledger.RowQuery{Limit: 9}, []money.NanoUSD{32, 16, 8, 4, 2, 1}},
			"a page by cost":         {ledger.RowQuery{Sort: ledger.ByCost, Ascending: true, Limit: 2, Offset: 1}, []money.NanoUSD{2, 4}},
			"a day":                  {ledger.RowQuery{From: today.AddDate(0, 0, -1), To: today, Limit: 9}, []money.NanoUSD{8, 4, 2}},
			"failures that cost":     {ledger.RowQuery{MinCost: &cost, Failed: &failed, Limit: 9}, []money.NanoUSD{16, 4}},
			"a team that is no text": {ledger.RowQuery{TeamID: "t1\x00", MaxCost: &cost, Limit: 9}, []money.NanoUSD{4, 2, 1}},
		} {
			rows, err := s.FindRows(t.Context(), tt.q)
			var got []money.NanoUSD
			for _, r := range rows {
				got = append(got, r.Cost)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
			n, err := s.CountRows(t.Context(), tt.q)
			if page := tt.q.Offset > 0; err != nil || !page && n != int64(len(got)) || page && n != 6 {
				t.Errorf("%s: %d rows, %v", name, n, err)
			}
		}
	})
}
