package litellm

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// daily is a request for a report by day.
type daily interface {
	GetStartDate() string
	GetEndDate() string
	GetModel() string
	GetApiKey() string
	GetPage() int32
	GetPageSize() int32
}

func dailyOf(r daily) (ledger.Days, page, error) {
	p, err := pageOf(r.GetPage(), r.GetPageSize(), 50, 1000)
	if err != nil {
		return ledger.Days{}, p, err
	}
	days, err := neededDays(r.GetStartDate(), r.GetEndDate())
	return days, p, err
}

// GetTeamActivity implements GET /team/daily/activity.
func (s *Server) GetTeamActivity(ctx context.Context, r *litellmv1.GetTeamActivityRequest) (*litellmv1.GetTeamActivityResponse, error) {
	days, p, err := dailyOf(r)
	if err != nil {
		return nil, err
	}
	teams, left := listOf(r.GetTeamIds()), listOf(r.GetExcludeTeamIds())
	var out *litellmv1.Activity
	if r.GetApiKey() != "" {
		out, err = s.keyActivity(ctx, r, days, p, teams)
	} else {
		out, err = s.teamActivity(ctx, teamReport{teams, left, r.GetModel(), days, p})
	}
	return &litellmv1.GetTeamActivityResponse{Activity: out}, err
}

type teamReport struct {
	teams, left []string // those that are wanted, empty: all; and those that are not
	model       string
	days        ledger.Days
	page        page
}

func (s *Server) teamActivity(ctx context.Context, t teamReport) (*litellmv1.Activity, error) {
	entities, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindTeam, IDs: t.teams, Days: t.days})
	if err != nil {
		return nil, err
	}
	entities = slices.DeleteFunc(entities, func(u ledger.Use) bool { return slices.Contains(t.left, u.ID) })
	models, err := s.ledger.TeamModels(ctx, idsOf(entities), t.days)
	if err != nil {
		return nil, err
	}
	a := activity{sums: entities, entities: entities, about: map[string]*structpb.Struct{}}
	if t.model != "" {
		models = slices.DeleteFunc(models, func(u ledger.Use) bool { return !strings.HasSuffix(u.ID, "\n"+t.model) })
		a.entities = named(models, func(id string) string { team, _, _ := strings.Cut(id, "\n"); return team })
		a.sums = a.entities
	}
	a.models = named(models, func(id string) string { _, model, _ := strings.Cut(id, "\n"); return model })
	shown, total := daysOf(a.sums, t.page)
	if err := s.aboutTeams(ctx, &a, idsOf(a.entities)); err != nil {
		return nil, err
	}
	if t.model == "" && len(shown) > 0 {
		if err := s.teamKeys(ctx, &a, t.teams, around(shown)); err != nil {
			return nil, err
		}
	}
	return a.shown(shown, total, t.page), nil
}

// named gives uses the names that are shown.
func named(uses []ledger.Use, name func(id string) string) []ledger.Use {
	out := slices.Clone(uses)
	for i := range out {
		out[i].ID = name(out[i].ID)
	}
	return out
}

func (s *Server) aboutTeams(ctx context.Context, a *activity, ids []string) error {
	names, err := s.teamNames(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		a.about[id] = fields(map[string]*structpb.Value{"team_alias": structpb.NewStringValue(names(id))})
	}
	return nil
}

// mostShown bounds the keys of a report that is not about some of them.
const mostShown = 1000

// teamKeys adds the keys of the teams, or of everybody the dearest.
func (s *Server) teamKeys(ctx context.Context, a *activity, teams []string, days ledger.Days) error {
	if len(teams) == 0 {
		return s.dearestKeys(ctx, a, days)
	}
	for _, team := range teams {
		if err := s.keysOf(ctx, a, &keysv1.ListKeysRequest{TeamId: team, IncludeEnded: true}, days); err != nil {
			return err
		}
	}
	return nil
}

// keysOf adds the keys that a list picks; of very many the newest.
func (s *Server) keysOf(ctx context.Context, a *activity, r *keysv1.ListKeysRequest, days ledger.Days) error {
	tokens := map[string]string{}
	r.PageSize = 1000
	for {
		resp, err := s.keys.ListKeys(ctx, r)
		if err != nil {
			return err
		}
		for _, k := range resp.GetKeys() {
			tokens[k.GetKeyId()] = k.GetToken()
			a.about[k.GetToken()] = fields(map[string]*structpb.Value{
				"key_alias": textOrNull(k.GetKeyAlias()), "team_id": textOrNull(k.GetTeamId()),
			})
		}
		if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" || len(tokens) >= mostRows {
			break
		}
	}
	ids := make([]string, 0, len(tokens))
	for id := range tokens {
		ids = append(ids, id)
	}
	uses, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindKey, IDs: ids, Days: days})
	a.keys = append(a.keys, named(uses, func(id string) string { return tokens[id] })...)
	return err
}

func (s *Server) dearestKeys(ctx context.Context, a *activity, days ledger.Days) error {
	top, err := s.ledger.Top(ctx, ledger.KindKey, days, mostShown)
	if err != nil || len(top) == 0 {
		return err
	}
	uses, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindKey, IDs: idsOf(top), Days: days})
	if err != nil {
		return err
	}
	tokens, err := s.tokens(ctx, top)
	a.keys = named(uses, tokens)
	return err
}

// keyActivity reports on one key, from its rows. With teams the key must be of
// one of them.
func (s *Server) keyActivity(ctx context.Context, r daily, days ledger.Days, p page, teams []string) (*litellmv1.Activity, error) {
	k, err := s.anyKey(ctx, r.GetApiKey())
	if err != nil {
		return nil, err
	}
	if k == nil || len(teams) > 0 && !slices.Contains(teams, k.GetTeamId()) {
		return activity{}.shown(nil, 0, p), nil
	}
	a := activity{about: map[string]*structpb.Struct{}}
	if err := s.slices(ctx, &a, ledger.AccountID{Kind: ledger.KindKey, ID: k.GetKeyId()}, r.GetModel(), days); err != nil {
		return nil, err
	}
	a.about[k.GetToken()] = fields(map[string]*structpb.Value{"key_alias": textOrNull(k.GetKeyAlias()), "team_id": textOrNull(k.GetTeamId())})
	if k.GetTeamId() != "" {
		a.entities = named(a.sums, func(string) string { return k.GetTeamId() })
	}
	shown, total := daysOf(a.sums, p)
	return a.shown(shown, total, p), nil
}

// slices adds what a key or a session used, from its rows.
func (s *Server) slices(ctx context.Context, a *activity, of ledger.AccountID, model string, days ledger.Days) error {
	found, err := s.ledger.Slices(ctx, of, days)
	for _, l := range found {
		if model != "" && l.ID != model {
			continue
		}
		a.sums, a.models = append(a.sums, l.Use), append(a.models, l.Use)
		key, group := l.Use, l.Use
		key.ID, group.ID = l.Token, l.ModelGroup
		a.keys, a.groups = append(a.keys, key), append(a.groups, group)
	}
	return err
}

// GetUserActivity implements GET /user/daily/activity.
func (s *Server) GetUserActivity(ctx context.Context, r *litellmv1.GetUserActivityRequest) (*litellmv1.GetUserActivityResponse, error) {
	days, p, err := dailyOf(r)
	if err != nil {
		return nil, err
	}
	var out *litellmv1.Activity
	switch {
	case r.GetApiKey() != "":
		if r.GetUserId() != "" {
			return nil, fault.Errorf(fault.Invalid, "user_id and api_key cannot both be given: a key has one user")
		}
		out, err = s.keyActivity(ctx, r, days, p, nil)
	case r.GetUserId() != "":
		out, err = s.userActivity(ctx, r, days, p)
	default:
		out, err = s.allActivity(ctx, r.GetModel(), days, p)
	}
	return &litellmv1.GetUserActivityResponse{Activity: out}, err
}

// userActivity reports on a session, from its rows.
func (s *Server) userActivity(ctx context.Context, r *litellmv1.GetUserActivityRequest, days ledger.Days, p page) (*litellmv1.Activity, error) {
	a := activity{about: map[string]*structpb.Struct{}}
	if err := s.slices(ctx, &a, ledger.AccountID{Kind: ledger.KindUser, ID: r.GetUserId()}, r.GetModel(), days); err != nil {
		return nil, err
	}
	a.entities = named(a.sums, func(string) string { return r.GetUserId() })
	shown, total := daysOf(a.sums, p)
	return a.shown(shown, total, p), nil
}

// allActivity reports on everybody, from the totals.
func (s *Server) allActivity(ctx context.Context, model string, days ledger.Days, p page) (*litellmv1.Activity, error) {
	q := ledger.UseQuery{Kind: ledger.KindModel, Days: days}
	if model != "" {
		q.IDs = []string{model}
	}
	models, err := s.ledger.Uses(ctx, q)
	if err != nil {
		return nil, err
	}
	a := activity{sums: models, models: models}
	shown, total := daysOf(a.sums, p)
	if model == "" && len(shown) > 0 {
		if err := s.dearestKeys(ctx, &a, around(shown)); err != nil {
			return nil, err
		}
	}
	return a.shown(shown, total, p), nil
}

// GetTagActivity implements GET /tag/daily/activity. What a request with several
// tags used counts for each of them.
func (s *Server) GetTagActivity(ctx context.Context, r *litellmv1.GetTagActivityRequest) (*litellmv1.GetTagActivityResponse, error) {
	days, p, err := dailyOf(r)
	if err != nil {
		return nil, err
	}
	if r.GetModel() != "" || r.GetApiKey() != "" {
		return nil, fault.Errorf(fault.Invalid, "sums of tags are not kept by model or key: leave model and api_key out")
	}
	q := ledger.UseQuery{Kind: ledger.KindTag, Days: days}
	if tags := listOf(r.GetTags()); len(tags) > 0 {
		q.IDs = tags
	}
	uses, err := s.ledger.Uses(ctx, q)
	if err != nil {
		return nil, err
	}
	a := activity{sums: uses, entities: uses}
	shown, total := daysOf(a.sums, p)
	return &litellmv1.GetTagActivityResponse{Activity: a.shown(shown, total, p)}, nil
}
