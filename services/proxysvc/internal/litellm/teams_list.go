package litellm

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// ListTeams implements GET /team/list.
func (s *Server) ListTeams(ctx context.Context, r *litellmv1.ListTeamsRequest) (*litellmv1.ListTeamsResponse, error) {
	teams, err := s.allTeams(ctx, r.GetUserId())
	if err != nil {
		return nil, err
	}
	keys, err := s.keysByTeam(ctx, teams, r.GetUserId())
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(teams, func(a, b *keysv1.Team) int { return cmp.Compare(a.GetTeamAlias(), b.GetTeamAlias()) })
	rows, err := s.teamRows(ctx, teams)
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListTeamsResponse{}
	for _, row := range rows {
		team, err := structOf(row)
		if err != nil {
			return nil, err
		}
		team.Fields["team_memberships"] = structpb.NewListValue(&structpb.ListValue{})
		team.Fields["keys"] = structpb.NewListValue(&structpb.ListValue{Values: keys[row.GetTeamId()]})
		out.Teams = append(out.Teams, team)
	}
	return out, nil
}

// allTeams lists all teams, or those of a session; Invalid when there are too
// many for one answer.
func (s *Server) allTeams(ctx context.Context, userID string) ([]*keysv1.Team, error) {
	var all []*keysv1.Team
	r := &keysv1.ListTeamsRequest{UserId: userID, PageSize: 1000}
	for {
		resp, err := s.teams.ListTeams(ctx, r)
		if err != nil {
			return nil, err
		}
		all = append(all, resp.GetTeams()...)
		r.PageToken = resp.GetNextPageToken()
		switch {
		case r.PageToken == "":
			return all, nil
		case len(all) >= mostRows:
			return nil, fault.Errorf(fault.Invalid, "there are more than %d teams for one answer; list them in pages with /v2/team/list", mostRows)
		}
	}
}

// keysByTeam are the rows of the teams' keys, without their tokens.
func (s *Server) keysByTeam(ctx context.Context, teams []*keysv1.Team, userID string) (map[string][]*structpb.Value, error) {
	r := &keysv1.ListKeysRequest{}
	switch {
	case len(teams) == 0:
		return nil, nil
	case len(teams) == 1:
		r.TeamId = teams[0].GetTeamId()
	case userID != "":
		return nil, nil // a session that moved between teams: each has its own page
	}
	keys, err := s.allKeys(ctx, r)
	if err != nil {
		return nil, err
	}
	rows, err := s.keyRows(ctx, keys)
	if err != nil {
		return nil, err
	}
	byTeam := map[string][]*structpb.Value{}
	for i, k := range keys {
		delete(rows[i].GetFields(), "token")
		byTeam[k.GetTeamId()] = append(byTeam[k.GetTeamId()], structpb.NewStructValue(rows[i]))
	}
	return byTeam, nil
}

// ListTeamPage implements GET /v2/team/list.
func (s *Server) ListTeamPage(ctx context.Context, r *litellmv1.ListTeamPageRequest) (*litellmv1.ListTeamPageResponse, error) {
	p, err := pageOf(r.GetPage(), r.GetPageSize(), 10, 100)
	if err != nil {
		return nil, err
	}
	teams, total, err := s.teamPage(ctx, r, p)
	if err != nil {
		return nil, err
	}
	rows, err := s.teamRows(ctx, teams)
	return &litellmv1.ListTeamPageResponse{
		Teams: rows, Total: int32(total), Page: int32(p.number), PageSize: int32(p.size), TotalPages: p.pages(total),
	}, err
}

func (s *Server) teamPage(ctx context.Context, r *litellmv1.ListTeamPageRequest, p page) ([]*keysv1.Team, int64, error) {
	if r.GetTeamId() != "" {
		t, err := s.findTeam(ctx, r.GetTeamId())
		if err != nil || t == nil || p.number > 1 {
			return nil, 0, err
		}
		return []*keysv1.Team{t}, 1, nil
	}
	resp, err := s.teams.ListTeams(ctx, &keysv1.ListTeamsRequest{
		UserId: r.GetUserId(), TeamAlias: r.GetTeamAlias(), IncludeTotal: true, PageSize: int32(p.size), Skip: int32(p.skip()), // pageOf bounds them
	})
	return resp.GetTeams(), resp.GetTotalCount(), err
}

// ListAvailableTeams implements GET /team/available: nobody joins a team here.
func (s *Server) ListAvailableTeams(context.Context, *litellmv1.ListAvailableTeamsRequest) (*litellmv1.ListAvailableTeamsResponse, error) {
	return &litellmv1.ListAvailableTeamsResponse{}, nil
}
