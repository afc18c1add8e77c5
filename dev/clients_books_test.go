package dev

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// simulator is what is asked of a simulator's oracle.
type simulator struct {
	requests func() []arrival
	answers  func() []served
}

// arrival is a request as a simulator got it.
type arrival struct {
	id     string // the upstream's request id
	header http.Header
	sent
}

// served is an answer that was begun.
type served struct {
	id        string // the upstream's request id
	messageID string
	usage     *proxyv1.Usage
	// guessed are the fields of usage that were not reported, so that the ledger
	// has to estimate them.
	guessed  []protoreflect.Name
	cost     func(*testing.T, *proxyv1.Usage) int64 // of such a usage, by hand
	finished bool
	early    string // why it ended early
}

// books are what a simulator and the ledger have of one client, by the
// upstream's request id.
type books struct {
	arrived map[string][]arrival // by scenario
	served  map[string]served
	rows    map[string]*proxyv1.SpendRow
	all     []*proxyv1.SpendRow
	account *proxyv1.GetAccountResponse // the team's
}

// patience is how long the books may take to be complete. Only a failing test
// waits for so long.
const patience = 30 * time.Second

// booksOf waits until all that a client has used is on the ledger.
func booksOf(t *testing.T, sim simulator, spend proxyv1.SpendServiceClient, team string) books {
	t.Helper()
	var b books
	limit := time.Now().Add(patience)
	poll(t, func() bool {
		b = booksNow(t, sim, spend, team)
		return b.complete() || time.Now().After(limit)
	})
	return b
}

func booksNow(t *testing.T, sim simulator, spend proxyv1.SpendServiceClient, team string) books {
	t.Helper()
	b := books{arrived: map[string][]arrival{}, served: map[string]served{}, rows: map[string]*proxyv1.SpendRow{}}
	ours := map[string]bool{}
	for _, r := range sim.requests() {
		if name, found := strings.CutPrefix(r.header.Get("X-Scenario"), team+"/"); found {
			ours[r.id] = true
			b.arrived[name] = append(b.arrived[name], r)
		}
	}
	for _, a := range sim.answers() {
		if ours[a.id] {
			b.served[a.id] = a
		}
	}
	b.all = rows(t, spend, team)
	for _, row := range b.all {
		b.rows[row.GetUpstreamRequestId()] = row
	}
	var err error
	if b.account, err = spend.GetAccount(t.Context(), &proxyv1.GetAccountRequest{Kind: "team", Id: team}); err != nil {
		t.Fatal(err)
	}
	return b
}

func ofAnthropic(s *anthropic.Server) simulator {
	return simulator{
		requests: func() (all []arrival) {
			for _, r := range s.Requests() {
				all = append(all, arrival{r.RequestID, r.Header, sent{
					r.Method, r.Path, r.Query, r.BodySHA256, r.Header.Get("Anthropic-Version"), r.Header.Get("Anthropic-Beta"),
				}})
			}
			return all
		},
		answers: func() (all []served) {
			for _, e := range s.Ledger() {
				all = append(all, servedByAnthropic(e))
			}
			return all
		},
	}
}

func servedByAnthropic(e anthropic.Entry) served {
	a := served{
		id: e.RequestID, messageID: e.ID, finished: e.Finished, early: e.Error,
		usage: &proxyv1.Usage{
			InputTokens: e.Usage.InputTokens, OutputTokens: e.Usage.OutputTokens,
			CacheReadInputTokens:     e.Usage.CacheReadInputTokens,
			CacheWrite_5MInputTokens: e.Usage.CacheCreation.Ephemeral5mInputTokens,
			CacheWrite_1HInputTokens: e.Usage.CacheCreation.Ephemeral1hInputTokens,
		},
		cost: func(t *testing.T, u *proxyv1.Usage) int64 {
			t.Helper()
			return byHand(t, anthropic.Entry{Model: e.Model, Usage: anthropic.Usage{
				InputTokens: u.GetInputTokens(), OutputTokens: u.GetOutputTokens(),
				CacheReadInputTokens: u.GetCacheReadInputTokens(),
				CacheCreation: anthropic.CacheCreation{
					Ephemeral5mInputTokens: u.GetCacheWrite_5MInputTokens(),
					Ephemeral1hInputTokens: u.GetCacheWrite_1HInputTokens(),
				},
			}})
		},
	}
	if !e.Finished { // message_start reports all but the output
		a.guessed = []protoreflect.Name{"output_tokens"}
	}
	return a
}

// rows lists a team's spend, or all of it.
func rows(t *testing.T, spend proxyv1.SpendServiceClient, team string) []*proxyv1.SpendRow {
	t.Helper()
	var all []*proxyv1.SpendRow
	for token := ""; ; {
		page, err := spend.ListSpend(t.Context(), &proxyv1.ListSpendRequest{TeamId: team, PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.GetRows()...)
		if token = page.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// complete says whether nothing is on its way any more.
func (b books) complete() bool {
	for id, e := range b.served {
		if b.rows[id] == nil || (!e.finished && e.early == "") {
			return false
		}
	}
	return b.account.GetOpenRequests() == 0
}

// balance holds the ledger against what was served: one row for each answer,
// with its usage, at its price, and nothing else that costs.
func (b books) balance(t *testing.T) {
	t.Helper()
	if len(b.rows) != len(b.all) {
		t.Errorf("%d rows for %d upstream requests", len(b.all), len(b.rows))
	}
	var total int64
	for id, row := range b.rows {
		total += row.GetCostNanoUsd()
		if _, ok := b.served[id]; !ok && row.GetCostNanoUsd() != 0 {
			t.Errorf("nothing was served for %v", row)
		}
	}
	for id, e := range b.served {
		b.rowOf(t, id, e)
	}
	if a := b.account; a.GetSpentNanoUsd() != total || a.GetRequests() != int64(len(b.all)) || a.GetHeldNanoUsd() != 0 || a.GetOpenRequests() != 0 {
		t.Errorf("%d nano-dollars in %d rows, but the account is %v", total, len(b.all), a)
	}
}

func (b books) rowOf(t *testing.T, id string, e served) {
	t.Helper()
	row := b.rows[id]
	if row.GetMessageId() != e.messageID {
		t.Errorf("answer %s has the row %v", e.messageID, row)
		return
	}
	if got, want := row.GetCostNanoUsd(), e.cost(t, row.GetUsage()); got != want {
		t.Errorf("%v costs %d by hand", row, want)
	}
	if row.GetEstimated() != (len(e.guessed) > 0) || row.GetUsage().GetOutputTokens() == 0 {
		t.Errorf("%v were not reported in %v", e.guessed, row)
	}
	ignored := append([]protoreflect.Name{"speed", "inference_geo", "service_tier"}, e.guessed...)
	without := protocmp.IgnoreFields(&proxyv1.Usage{}, ignored...)
	if diff := cmp.Diff(e.usage, row.GetUsage(), protocmp.Transform(), without); diff != "" {
		t.Errorf("usage of %s (-simulator +ledger):\n%s", e.messageID, diff)
	}
}
