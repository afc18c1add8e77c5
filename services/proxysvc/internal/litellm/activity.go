package litellm

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// activity is what LiteLLM's reports by day are made of. The ids of the uses are
// the names that are shown.
type activity struct {
	sums                           []ledger.Use
	models, groups, keys, entities []ledger.Use
	// about says more of keys and entities, by what they are shown as.
	about map[string]*structpb.Struct
}

// days are the days of a page, newest first, and how many there are in all.
func daysOf(sums []ledger.Use, p page) (days []time.Time, total int64) {
	seen := map[time.Time]bool{}
	for _, u := range sums {
		seen[u.Day] = true
	}
	all := slices.SortedFunc(maps.Keys(seen), func(a, b time.Time) int { return b.Compare(a) })
	return cut(all, p), int64(len(all))
}

// around is the range of days that a page needs.
func around(days []time.Time) ledger.Days {
	if len(days) == 0 {
		return ledger.Days{}
	}
	return ledger.Days{From: days[len(days)-1], To: days[0]}
}

// shown is the page with those days.
func (a activity) shown(days []time.Time, total int64, p page) *litellmv1.Activity {
	var sum ledger.Use
	out := &litellmv1.Activity{}
	for _, day := range days {
		of := totalOf(a.sums, day)
		addUse(&sum, of)
		out.Results = append(out.Results, &litellmv1.ActivityDay{
			Date: day.Format(time.DateOnly), Metrics: metrics(of), Breakdown: a.breakdown(day),
		})
	}
	m := metrics(sum)
	out.Metadata = &litellmv1.ActivityMetadata{
		TotalSpend: m.GetSpend(), TotalPromptTokens: m.GetPromptTokens(), TotalCompletionTokens: m.GetCompletionTokens(), TotalTokens: m.GetTotalTokens(),
		TotalApiRequests: m.GetApiRequests(), TotalSuccessfulRequests: m.GetSuccessfulRequests(), TotalFailedRequests: m.GetFailedRequests(),
		TotalCacheReadInputTokens: m.GetCacheReadInputTokens(), TotalCacheCreationInputTokens: m.GetCacheCreationInputTokens(),
		Page: int32(p.number), TotalPages: p.pages(total), HasMore: int64(p.number)*int64(p.size) < total,
	}
	return out
}

func (a activity) breakdown(day time.Time) *litellmv1.ActivityBreakdown {
	providers := make([]ledger.Use, 0, len(a.models))
	for _, u := range a.models {
		u.ID = providerOf(u.ID)
		providers = append(providers, u)
	}
	return &litellmv1.ActivityBreakdown{
		Models: a.parts(a.models, day), ModelGroups: a.parts(a.groups, day), Providers: a.parts(providers, day),
		ApiKeys: a.parts(a.keys, day), Entities: a.parts(a.entities, day),
	}
}

// parts are the uses of a day by their ids.
func (a activity) parts(uses []ledger.Use, day time.Time) map[string]*litellmv1.ActivityPart {
	sums := map[string]*ledger.Use{}
	for _, u := range uses {
		if !u.Day.Equal(day) {
			continue
		}
		if sums[u.ID] == nil {
			sums[u.ID] = &ledger.Use{}
		}
		addUse(sums[u.ID], u)
	}
	parts := map[string]*litellmv1.ActivityPart{}
	for id, u := range sums {
		parts[id] = &litellmv1.ActivityPart{Metrics: metrics(*u), Metadata: object(a.about[id])}
	}
	return parts
}

func totalOf(uses []ledger.Use, day time.Time) ledger.Use {
	var sum ledger.Use
	for _, u := range uses {
		if u.Day.Equal(day) {
			addUse(&sum, u)
		}
	}
	return sum
}

// addUse adds what was used; ids and days are left alone.
func addUse(sum *ledger.Use, u ledger.Use) {
	sum.Requests += u.Requests
	sum.Failed += u.Failed
	sum.Cost += u.Cost
	t, v := &sum.Usage, u.Usage
	t.InputTokens += v.InputTokens
	t.OutputTokens += v.OutputTokens
	t.CacheReadTokens += v.CacheReadTokens
	t.CacheWrite5mTokens += v.CacheWrite5mTokens
	t.CacheWrite1hTokens += v.CacheWrite1hTokens
	t.WebSearchRequests += v.WebSearchRequests
}

func metrics(u ledger.Use) *litellmv1.ActivityMetrics {
	return &litellmv1.ActivityMetrics{
		Spend: usd(u.Cost), PromptTokens: float64(u.Usage.PromptTokens()), CompletionTokens: float64(u.Usage.OutputTokens),
		CacheReadInputTokens:     float64(u.Usage.CacheReadTokens),
		CacheCreationInputTokens: float64(u.Usage.CacheWrite5mTokens + u.Usage.CacheWrite1hTokens),
		TotalTokens:              float64(totalTokens(u.Usage)),
		SuccessfulRequests:       float64(u.Requests - u.Failed), FailedRequests: float64(u.Failed), ApiRequests: float64(u.Requests),
	}
}
