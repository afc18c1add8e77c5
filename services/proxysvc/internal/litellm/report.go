package litellm

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// lastDays are the 30 days before today, and today.
func (s *Server) lastDays() ledger.Days {
	today := s.now().UTC().Truncate(24 * time.Hour)
	return ledger.Days{From: today.AddDate(0, 0, -30), To: today}
}

// GetGlobalSpend implements GET /global/spend.
func (s *Server) GetGlobalSpend(ctx context.Context, _ *litellmv1.GetGlobalSpendRequest) (*litellmv1.GetGlobalSpendResponse, error) {
	models, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindModel, Days: s.lastDays()})
	var sum money.NanoUSD
	for _, u := range models {
		sum += u.Cost
	}
	return &litellmv1.GetGlobalSpendResponse{Spend: usd(sum)}, err
}

// GetSpendReport implements GET /global/spend/report.
func (s *Server) GetSpendReport(ctx context.Context, r *litellmv1.GetSpendReportRequest) (*litellmv1.GetSpendReportResponse, error) {
	days, err := neededDays(r.GetStartDate(), r.GetEndDate())
	if err != nil {
		return nil, err
	}
	var rows []*structpb.Struct
	switch {
	case r.GetApiKey() != "":
		var id string
		if id, err = s.keyID(ctx, r.GetApiKey()); err == nil {
			rows, err = s.reportSlices(ctx, ledger.AccountID{Kind: ledger.KindKey, ID: id}, days)
		}
	case r.GetInternalUserId() != "":
		rows, err = s.reportSlices(ctx, ledger.AccountID{Kind: ledger.KindUser, ID: r.GetInternalUserId()}, days)
	case r.GetGroupBy() == "" || r.GetGroupBy() == "team":
		rows, err = s.reportTeams(ctx, r.GetTeamId(), days)
	case r.GetGroupBy() == "api_key":
		rows, err = s.reportKeys(ctx, days)
	default:
		err = fault.Errorf(fault.Invalid, "group_by must be team or api_key; sums by customer are not kept. Received: %.64q", r.GetGroupBy())
	}
	return &litellmv1.GetSpendReportResponse{Rows: rows}, err
}

// reportTeams reports by day, team and model.
func (s *Server) reportTeams(ctx context.Context, teamID string, days ledger.Days) ([]*structpb.Struct, error) {
	q := ledger.UseQuery{Kind: ledger.KindTeam, Days: days}
	if teamID != "" {
		q.IDs = []string{teamID}
	}
	teams, err := s.ledger.Uses(ctx, q)
	if err != nil {
		return nil, err
	}
	ids := idsOf(teams)
	models, err := s.ledger.TeamModels(ctx, ids, days)
	if err != nil {
		return nil, err
	}
	names, err := s.teamNames(ctx, ids)
	if err != nil {
		return nil, err
	}
	parts := map[string][]*structpb.Value{} // by day and team
	for _, u := range models {
		team, model, _ := strings.Cut(u.ID, "\n")
		at := u.Day.Format(time.DateOnly) + team
		parts[at] = append(parts[at], structpb.NewStructValue(fields(map[string]*structpb.Value{
			"model": structpb.NewStringValue(model), "spend": structpb.NewNumberValue(usd(u.Cost)),
			"total_tokens": count(totalTokens(u.Usage)), "api_key": structpb.NewNullValue(),
		})))
	}
	byDay := map[string][]*structpb.Value{}
	for _, u := range teams {
		day := u.Day.Format(time.DateOnly)
		byDay[day] = append(byDay[day], structpb.NewStructValue(fields(map[string]*structpb.Value{
			"team_name": structpb.NewStringValue(names(u.ID)), "total_spend": structpb.NewNumberValue(usd(u.Cost)),
			"metadata": structpb.NewListValue(&structpb.ListValue{Values: parts[day+u.ID]}),
		})))
	}
	var rows []*structpb.Struct
	for _, day := range slices.Sorted(maps.Keys(byDay)) {
		rows = append(rows, fields(map[string]*structpb.Value{
			"group_by_day": structpb.NewStringValue(day), "teams": structpb.NewListValue(&structpb.ListValue{Values: byDay[day]}),
		}))
	}
	return rows, nil
}

func idsOf(uses []ledger.Use) []string {
	ids := map[string]bool{}
	for _, u := range uses {
		ids[u.ID] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// teamNames finds the aliases of teams, deleted ones too; a team without one is
// called by its id.
func (s *Server) teamNames(ctx context.Context, ids []string) (func(id string) string, error) {
	wanted := map[string]string{}
	for _, id := range ids {
		wanted[id] = id
	}
	r := &keysv1.ListTeamsRequest{PageSize: 1000, IncludeDeleted: true}
	for left := len(ids); left > 0; {
		resp, err := s.teams.ListTeams(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, t := range resp.GetTeams() {
			if _, ok := wanted[t.GetTeamId()]; ok {
				left--
				wanted[t.GetTeamId()] = firstText(t.GetTeamAlias(), t.GetTeamId())
			}
		}
		if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
			break
		}
	}
	return func(id string) string { return wanted[id] }, nil
}

// keyReport is what one key spent, by model.
type keyReport struct {
	cost          money.NanoUSD
	input, output int64
	models        map[string]*ledger.Use
	order         []string
}

// reportSlices reports by key and model what a key or a session spent.
func (s *Server) reportSlices(ctx context.Context, of ledger.AccountID, days ledger.Days) ([]*structpb.Struct, error) {
	slicesOf, err := s.ledger.Slices(ctx, of, days)
	if err != nil {
		return nil, err
	}
	keys := map[string]*keyReport{}
	for _, l := range slicesOf {
		k := keys[l.Token]
		if k == nil {
			k = &keyReport{models: map[string]*ledger.Use{}}
			keys[l.Token] = k
		}
		k.add(l.Use)
	}
	var rows []*structpb.Struct
	for _, token := range slices.Sorted(maps.Keys(keys)) {
		rows = append(rows, keys[token].row(token))
	}
	return rows, nil
}

func (k *keyReport) add(u ledger.Use) {
	k.cost += u.Cost
	k.input += u.Usage.PromptTokens()
	k.output += u.Usage.OutputTokens
	sum := k.models[u.ID]
	if sum == nil {
		sum = &ledger.Use{}
		k.models[u.ID] = sum
		k.order = append(k.order, u.ID)
	}
	addUse(sum, u)
}

func (k *keyReport) row(token string) *structpb.Struct {
	details := &structpb.ListValue{}
	for _, model := range k.order {
		u := k.models[model]
		details.Values = append(details.Values, structpb.NewStructValue(fields(map[string]*structpb.Value{
			"model": structpb.NewStringValue(model), "total_cost": structpb.NewNumberValue(usd(u.Cost)),
			"total_input_tokens": count(u.Usage.PromptTokens()), "total_output_tokens": count(u.Usage.OutputTokens),
		})))
	}
	return fields(map[string]*structpb.Value{
		"api_key": structpb.NewStringValue(token), "total_cost": structpb.NewNumberValue(usd(k.cost)),
		"total_input_tokens": count(k.input), "total_output_tokens": count(k.output), "model_details": structpb.NewListValue(details),
	})
}

// reportKeys reports what all keys spent; the totals do not split them by model.
func (s *Server) reportKeys(ctx context.Context, days ledger.Days) ([]*structpb.Struct, error) {
	top, err := s.ledger.Top(ctx, ledger.KindKey, days, mostRows)
	if err != nil {
		return nil, err
	}
	tokens, err := s.tokens(ctx, top)
	if err != nil {
		return nil, err
	}
	var rows []*structpb.Struct
	for _, u := range top {
		k := &keyReport{cost: u.Cost, input: u.Usage.PromptTokens(), output: u.Usage.OutputTokens}
		rows = append(rows, k.row(tokens(u.ID)))
	}
	return rows, nil
}

func topLimit(asked int32, usual int) (int, error) {
	if asked < 0 || asked > 1000 {
		return 0, fault.Errorf(fault.Invalid, "limit must be from 1 to 1000")
	}
	if asked == 0 {
		return usual, nil
	}
	return int(asked), nil
}

// ListKeySpend implements GET /global/spend/keys.
func (s *Server) ListKeySpend(ctx context.Context, r *litellmv1.ListKeySpendRequest) (*litellmv1.ListKeySpendResponse, error) {
	limit, err := topLimit(r.GetLimit(), 100)
	if err != nil {
		return nil, err
	}
	top, err := s.ledger.Top(ctx, ledger.KindKey, s.lastDays(), limit)
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListKeySpendResponse{}
	for _, u := range top {
		k, err := s.anyKey(ctx, u.ID)
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, &litellmv1.KeySpend{
			ApiKey: firstText(k.GetToken(), u.ID), KeyAlias: text(k.GetKeyAlias()), KeyName: text(k.GetKeyName()), TotalSpend: usd(u.Cost),
		})
	}
	return out, nil
}

// ListModelSpend implements GET /global/spend/models.
func (s *Server) ListModelSpend(ctx context.Context, r *litellmv1.ListModelSpendRequest) (*litellmv1.ListModelSpendResponse, error) {
	limit, err := topLimit(r.GetLimit(), 10)
	if err != nil {
		return nil, err
	}
	top, err := s.ledger.Top(ctx, ledger.KindModel, s.lastDays(), limit)
	out := &litellmv1.ListModelSpendResponse{}
	for _, u := range top {
		out.Models = append(out.Models, &litellmv1.ModelSpend{Model: u.ID, TotalSpend: usd(u.Cost)})
	}
	return out, err
}

// ListTeamSpend implements GET /global/spend/teams.
func (s *Server) ListTeamSpend(ctx context.Context, _ *litellmv1.ListTeamSpendRequest) (*litellmv1.ListTeamSpendResponse, error) {
	uses, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindTeam, Days: s.lastDays()})
	if err != nil {
		return nil, err
	}
	names, err := s.teamNames(ctx, idsOf(uses))
	if err != nil {
		return nil, err
	}
	sums, totals := daySums{}, map[string]money.NanoUSD{}
	for _, u := range uses {
		sums.at(u.Day).keys[names(u.ID)] += u.Cost
		totals[names(u.ID)] += u.Cost
	}
	out := &litellmv1.ListTeamSpendResponse{Teams: slices.Sorted(maps.Keys(totals))}
	for _, day := range slices.Sorted(maps.Keys(sums)) {
		row := amounts(sums[day].keys)
		row.Fields["date"] = structpb.NewStringValue(day)
		out.DailySpend = append(out.DailySpend, row)
	}
	dearest := slices.SortedStableFunc(slices.Values(out.GetTeams()), func(a, b string) int { return cmp.Compare(totals[b], totals[a]) })
	for _, team := range dearest[:min(len(dearest), 10)] {
		out.TotalSpendPerTeam = append(out.TotalSpendPerTeam, &litellmv1.TeamSpend{TeamId: team, TotalSpend: usd(totals[team])})
	}
	return out, nil
}

// ListSpendTags implements GET /spend/tags.
func (s *Server) ListSpendTags(ctx context.Context, r *litellmv1.ListSpendTagsRequest) (*litellmv1.ListSpendTagsResponse, error) {
	top, err := s.topTags(ctx, r.GetStartDate(), r.GetEndDate())
	out := &litellmv1.ListSpendTagsResponse{}
	for _, u := range top {
		out.Tags = append(out.Tags, &litellmv1.SpendTag{IndividualRequestTag: u.ID, LogCount: int32(u.Requests), TotalSpend: usd(u.Cost)})
	}
	return out, err
}

// ListTagSpend implements GET /global/spend/tags.
func (s *Server) ListTagSpend(ctx context.Context, r *litellmv1.ListTagSpendRequest) (*litellmv1.ListTagSpendResponse, error) {
	top, err := s.topTags(ctx, r.GetStartDate(), r.GetEndDate())
	wanted := listOf(r.GetTags())
	out := &litellmv1.ListTagSpendResponse{}
	for _, u := range top {
		if len(wanted) == 0 || slices.Contains(wanted, "all-tags") || slices.Contains(wanted, u.ID) {
			out.SpendPerTag = append(out.SpendPerTag, &litellmv1.TagSpend{Name: u.ID, Spend: usd(u.Cost), LogCount: int32(u.Requests)})
		}
	}
	return out, err
}

func (s *Server) topTags(ctx context.Context, start, end string) ([]ledger.Use, error) {
	from, to, err := bothDates(start, end)
	if err != nil {
		return nil, err
	}
	return s.ledger.Top(ctx, ledger.KindTag, ledger.Days{From: from, To: to}, mostRows)
}

// ResetGlobalSpend implements POST /global/spend/reset.
func (s *Server) ResetGlobalSpend(context.Context, *litellmv1.ResetGlobalSpendRequest) (*litellmv1.ResetGlobalSpendResponse, error) {
	return nil, errSpend
}
