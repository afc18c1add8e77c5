package litellm

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// NewTeam implements POST /team/new.
func (s *Server) NewTeam(ctx context.Context, r *litellmv1.NewTeamRequest) (*litellmv1.NewTeamResponse, error) {
	if err := checkTeam(r); err != nil {
		return nil, err
	}
	limits, _, err := limitsFrom(r)
	if err != nil {
		return nil, err
	}
	id := r.GetTeamId().GetValue()
	if id == "" {
		id = uuid.NewString()
	}
	resp, err := s.teams.EnsureTeam(ctx, &keysv1.EnsureTeamRequest{
		TeamId: id, TeamAlias: r.GetTeamAlias().GetValue(), Limits: limits, Models: r.GetModels(), Metadata: r.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	if !resp.GetCreated() {
		return nil, fault.Errorf(fault.Invalid, "Team id = %s already exists. Please use a different team id.", id)
	}
	team := resp.GetTeam()
	if r.GetBlocked().GetValue() {
		if team, err = s.setGate(ctx, id, keysv1.TeamStatus_TEAM_STATUS_BLOCKED); err != nil {
			return nil, err
		}
	}
	return teamRow(team, ledger.Balance{}), nil
}

// GetTeamInfo implements GET /team/info.
func (s *Server) GetTeamInfo(ctx context.Context, r *litellmv1.GetTeamInfoRequest) (*litellmv1.GetTeamInfoResponse, error) {
	team, err := s.findTeam(ctx, r.GetTeamId())
	if err != nil {
		return nil, err
	}
	if team == nil {
		return nil, fault.Errorf(fault.NotFound, "Team not found, passed team id: %s.", r.GetTeamId())
	}
	row, err := s.teamRow(ctx, team)
	if err != nil {
		return nil, err
	}
	keys, err := s.allKeys(ctx, &keysv1.ListKeysRequest{TeamId: r.GetTeamId()})
	if err != nil {
		return nil, err
	}
	spent, err := s.keyBalances(ctx, keys...)
	if err != nil {
		return nil, err
	}
	out := &litellmv1.GetTeamInfoResponse{TeamId: r.GetTeamId(), TeamInfo: row}
	for i, k := range keys {
		out.Keys = append(out.Keys, keyInfo(k, spent[i]))
	}
	return out, nil
}

// teamRow is LiteLLM's row of a team as it stands.
func (s *Server) teamRow(ctx context.Context, t *keysv1.Team) (*litellmv1.NewTeamResponse, error) {
	rows, err := s.teamRows(ctx, []*keysv1.Team{t})
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

func (s *Server) teamRows(ctx context.Context, teams []*keysv1.Team) ([]*litellmv1.NewTeamResponse, error) {
	spent, err := s.teamBalances(ctx, teams...)
	if err != nil {
		return nil, err
	}
	rows := make([]*litellmv1.NewTeamResponse, len(teams))
	for i, t := range teams {
		rows[i] = teamRow(t, spent[i])
	}
	return rows, nil
}

// neededTeam is a team that a change is about.
func (s *Server) neededTeam(ctx context.Context, id string) (*keysv1.Team, error) {
	t, err := s.findTeam(ctx, id)
	if err == nil && t == nil {
		err = fault.Errorf(fault.NotFound, "Team not found, passed team_id=%s", id)
	}
	return t, err
}

// UpdateTeam implements POST /team/update.
func (s *Server) UpdateTeam(ctx context.Context, r *litellmv1.UpdateTeamRequest) (*litellmv1.UpdateTeamResponse, error) {
	if err := checkTeam(r); err != nil {
		return nil, err
	}
	team, err := s.neededTeam(ctx, r.GetTeamId())
	if err != nil {
		return nil, err
	}
	wanted, paths, err := teamFrom(r)
	if err != nil {
		return nil, err
	}
	if len(paths) > 0 {
		resp, err := s.teams.UpdateTeam(ctx, &keysv1.UpdateTeamRequest{Team: wanted, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		if err != nil {
			return nil, err
		}
		team = resp.GetTeam()
	}
	if r.GetBlocked() != nil {
		if team, err = s.gate(ctx, team, r.GetBlocked().GetValue()); err != nil {
			return nil, err
		}
	}
	row, err := s.teamRow(ctx, team)
	return &litellmv1.UpdateTeamResponse{TeamId: r.GetTeamId(), Data: row}, err
}

// teamFrom reads what a request changes about a team.
func teamFrom(r *litellmv1.UpdateTeamRequest) (*keysv1.Team, []string, error) {
	limits, paths, err := limitsFrom(r)
	if err != nil {
		return nil, nil, err
	}
	team := &keysv1.Team{TeamId: r.GetTeamId(), Limits: limits, Metadata: r.GetMetadata(), TeamAlias: r.GetTeamAlias().GetValue()}
	if r.GetMetadata() != nil {
		paths = append(paths, "metadata")
	}
	if r.GetTeamAlias() != nil {
		paths = append(paths, "team_alias")
	}
	if r.GetModels() != nil {
		paths = append(paths, "models")
	}
	team.Models, err = textsOf("models", r.GetModels())
	return team, paths, err
}

// gate blocks a team or opens it again. A gate that billing closed stays closed:
// it is not this that keeps the team out.
func (s *Server) gate(ctx context.Context, t *keysv1.Team, blocked bool) (*keysv1.Team, error) {
	switch status := t.GetStatus(); {
	case blocked:
		return s.setGate(ctx, t.GetTeamId(), keysv1.TeamStatus_TEAM_STATUS_BLOCKED)
	case status == keysv1.TeamStatus_TEAM_STATUS_BLOCKED:
		return s.setGate(ctx, t.GetTeamId(), keysv1.TeamStatus_TEAM_STATUS_ACTIVE)
	case status == keysv1.TeamStatus_TEAM_STATUS_ACTIVE:
		return t, nil
	}
	return nil, fault.Errorf(fault.Precondition, "Team=%s is not blocked: billing has stopped it, and opens it again when it has credits", t.GetTeamId())
}

func (s *Server) setGate(ctx context.Context, id string, status keysv1.TeamStatus) (*keysv1.Team, error) {
	resp, err := s.teams.SetTeamStatus(ctx, &keysv1.SetTeamStatusRequest{TeamId: id, Status: status})
	return resp.GetTeam(), err
}

// BlockTeam implements POST /team/block.
func (s *Server) BlockTeam(ctx context.Context, r *litellmv1.BlockTeamRequest) (*litellmv1.BlockTeamResponse, error) {
	row, err := s.gatedRow(ctx, r.GetTeamId(), true)
	return &litellmv1.BlockTeamResponse{Team: row}, err
}

// UnblockTeam implements POST /team/unblock.
func (s *Server) UnblockTeam(ctx context.Context, r *litellmv1.UnblockTeamRequest) (*litellmv1.UnblockTeamResponse, error) {
	row, err := s.gatedRow(ctx, r.GetTeamId(), false)
	return &litellmv1.UnblockTeamResponse{Team: row}, err
}

func (s *Server) gatedRow(ctx context.Context, id string, blocked bool) (*litellmv1.NewTeamResponse, error) {
	team, err := s.neededTeam(ctx, id)
	if err != nil {
		return nil, err
	}
	if team, err = s.gate(ctx, team, blocked); err != nil {
		return nil, err
	}
	return s.teamRow(ctx, team)
}

// DeleteTeam implements POST /team/delete. Each team ends with all its keys in
// one transaction; none does when one of them is missing.
func (s *Server) DeleteTeam(ctx context.Context, r *litellmv1.DeleteTeamRequest) (*litellmv1.DeleteTeamResponse, error) {
	if n := len(r.GetTeamIds()); n == 0 || n > mostKeys {
		return nil, fault.Errorf(fault.Invalid, "team_ids must be given, at most %d", mostKeys)
	}
	for _, id := range r.GetTeamIds() {
		if _, err := s.neededTeam(ctx, id); err != nil {
			return nil, err
		}
	}
	for _, id := range r.GetTeamIds() {
		if _, err := s.teams.DeleteTeam(ctx, &keysv1.DeleteTeamRequest{TeamId: id}); err != nil {
			return nil, err
		}
	}
	return &litellmv1.DeleteTeamResponse{DeletedTeams: r.GetTeamIds()}, nil
}
