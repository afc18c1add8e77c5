package store

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// BenchmarkCommit writes batches as a busy writer does: 18 requests are admitted and
// the 18 of the batch before settled, each of another key; "whole": 18 requests are
// settled that were not admitted before. Rows are counted every ten seconds, as they
// are by replicas. It tells the CPU of a request, Postgres's and this process's.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name           string
		limited, whole bool
		atOnce         int
	}{{name: "plain", atOnce: 18}, {name: "limited", limited: true, atOnce: 18}, {name: "whole", whole: true, atOnce: 18}, {name: "few", whole: true, atOnce: 2}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLoad(b, c.limited)
			l.whole, l.atOnce = c.whole, c.atOnce
			for range 100 {
				l.commit(b)
			}
			began, ours := l.cpu(b), processCPU(b)
			b.ReportAllocs()
			counted := time.Now()
			for b.Loop() {
				l.commit(b)
				if time.Since(counted) >= 10*time.Second {
					l.count(b)
					counted = time.Now()
				}
			}
			l.count(b)
			requests := float64(b.N * l.atOnce)
			b.ReportMetric(float64((l.cpu(b)-began).Nanoseconds())/1000/requests, "db-µs/request")
			b.ReportMetric(float64((processCPU(b)-ours).Nanoseconds())/1000/requests, "own-µs/request")
		})
	}
}

// BenchmarkCount counts the 90,000 rows of ten busy seconds, of 14,000 keys, into totals.
func BenchmarkCount(b *testing.B) {
	l := newLoad(b, false)
	l.whole, l.atOnce = true, 100
	var used time.Duration
	for b.Loop() {
		b.StopTimer()
		for range 900 {
			l.commit(b)
		}
		began := l.cpu(b)
		b.StartTimer()
		l.count(b)
		used += l.cpu(b) - began
	}
	b.ReportMetric(float64(used.Nanoseconds())/1000/float64(b.N*900*l.atOnce), "db-µs/row")
}

// busy is a log that is written to.
type busy struct {
	db      *pgxpool.Pool
	store   *Store
	log     ledger.Open
	limited bool
	whole   bool
	atOnce  int
	n       int
	open    []*ledger.Admission
}

func newLoad(b *testing.B, limited bool) *busy {
	b.Helper()
	db := pgtest.New(b, Schema, Migrations)
	l := &busy{db: db, store: New(db), limited: limited, atOnce: 1}
	if err := l.store.EnsurePartitions(b.Context(), time.Now(), 7); err != nil {
		b.Fatal(err)
	}
	var err error
	if l.log, err = l.store.OpenLog(b.Context(), "bench"); err != nil {
		b.Fatal(err)
	}
	if limited {
		l.limited = false
		for range 10 { // statements are planned while no account has a limit
			l.commit(b)
		}
		l.limited = true
		var claims []ledger.Claim
		for i := range 2000 {
			claims = append(claims, claim(ledger.KindKey, fmt.Sprintf("key_01jabcdefghij%09d", i)))
		}
		if err := l.store.EnsureAccounts(b.Context(), append(claims, claim(ledger.KindTeam, "team-limited"))); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

func claim(kind, id string) ledger.Claim {
	return ledger.Claim{
		Account: ledger.AccountID{Kind: kind, ID: id}, Who: kind,
		Limits: ledger.Limits{Budgets: []ledger.Budget{{Limit: 1e15, Window: "30d"}}},
	}
}

func (l *busy) admission() *ledger.Admission {
	l.n++
	a := &ledger.Admission{Request: ledger.Request{
		RequestID: fmt.Sprintf("req_%026d", l.n), KeyID: fmt.Sprintf("key_01jabcdefghij%09d", l.n*7919%14000), Token: strings.Repeat("ab", 32),
		TeamID: fmt.Sprintf("team-%d", l.n%1000), UserID: fmt.Sprintf("session-%d", l.n*7919%14000), ModelGroup: "claude-sonnet-4-5", Model: "claude-sonnet-4-5", ModelID: "anthropic/claude-sonnet-4-5",
		PriceVersion: "2026-01-01", StartedAt: time.Now(), UserAgent: "bench/1.0", Client: map[string]string{"session_id": "s"},
	}, Hold: 1_000_000, Tokens: 5000}
	if l.limited {
		a.KeyID, a.TeamID = fmt.Sprintf("key_01jabcdefghij%09d", l.n*7919%2000), "team-limited"
		a.Claims = []ledger.Claim{claim(ledger.KindKey, a.KeyID), claim(ledger.KindTeam, a.TeamID)}
	}
	return a
}

func (l *busy) admitNext() {
	l.open = l.open[:0:0]
	for range l.atOnce {
		l.open = append(l.open, l.admission())
	}
}

func (l *busy) count(b *testing.B) {
	b.Helper()
	if _, err := l.store.Count(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
}

func (l *busy) commit(b *testing.B) {
	b.Helper()
	batch := &ledger.Batch{LogID: l.log.LogID, Number: l.log.Batch + 1, FirstSeq: l.log.LastSeq + 1}
	if l.whole {
		l.admitNext()
	}
	for _, a := range l.open {
		now := time.Now()
		batch.Settlements = append(batch.Settlements, &ledger.Settlement{
			Request: a.Request, Hold: a.Hold, Tokens: a.Tokens, MessageID: "msg_01" + a.RequestID, UpstreamRequestID: "req_up" + a.RequestID,
			Usage: pricing.Usage{InputTokens: 500, OutputTokens: 20, ServiceTier: "standard"}, Cost: 1800000,
			Breakdown: map[string]money.NanoUSD{"input": 1500000, "output": 300000}, Status: ledger.Completed, StopReason: "end_turn",
			HTTPStatus: 200, FirstByteAt: now, EndedAt: now, Unadmitted: l.whole,
		})
	}
	if !l.whole {
		l.admitNext()
		batch.Admissions = l.open
	}
	batch.Decide = func(accounts map[ledger.AccountID]*ledger.Account, now time.Time) []*ledger.Admission {
		for _, a := range batch.Admissions {
			if r := ledger.Admit(a, accounts, now); r != nil {
				b.Fatal(r)
			}
		}
		return batch.Admissions
	}
	if err := l.store.Commit(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
	l.log.Batch, l.log.LastSeq = batch.Number, l.log.LastSeq+int64(len(batch.Settlements))
}

// cpu is what the sessions of this database have used.
func (l *busy) cpu(b *testing.B) time.Duration {
	b.Helper()
	rows, _ := l.db.Query(b.Context(), `select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend'`)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, pid := range pids {
		sum += scheduled(b, strconv.Itoa(pid))
	}
	return sum
}

func processCPU(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range threads {
		sum += scheduled(b, "self/task/"+t.Name())
	}
	return sum
}

// scheduled is how long a process, or one of its threads, has run.
func scheduled(b *testing.B, process string) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/" + process + "/schedstat")
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)
}
