package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// TeamServer serves TeamService.
type TeamServer struct {
	keysv1.UnimplementedTeamServiceServer
	svc *key.Service
}

// NewTeamServer makes a TeamServer.
func NewTeamServer(svc *key.Service) *TeamServer { return &TeamServer{svc: svc} }

// EnsureTeam implements TeamService.
func (s *TeamServer) EnsureTeam(ctx context.Context, req *keysv1.EnsureTeamRequest) (*keysv1.EnsureTeamResponse, error) {
	metadata, err := metadataFrom(req.GetMetadata())
	if err != nil {
		return nil, err
	}
	t, created, err := s.svc.EnsureTeam(ctx, caller(ctx), key.TeamAttributes{
		TeamID: req.GetTeamId(), TeamAlias: req.GetTeamAlias(), Models: req.GetModels(),
		Limits: limitsFrom(req.GetLimits()), Metadata: metadata,
	})
	if err != nil {
		return nil, err
	}
	team, err := teamTo(t)
	return &keysv1.EnsureTeamResponse{Team: team, Created: created}, err
}

// GetTeam implements TeamService.
func (s *TeamServer) GetTeam(ctx context.Context, req *keysv1.GetTeamRequest) (*keysv1.GetTeamResponse, error) {
	t, err := s.svc.Team(ctx, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	team, err := teamTo(t)
	return &keysv1.GetTeamResponse{Team: team}, err
}

// ListTeams implements TeamService.
func (s *TeamServer) ListTeams(ctx context.Context, req *keysv1.ListTeamsRequest) (*keysv1.ListTeamsResponse, error) {
	found, err := s.svc.Teams(ctx, key.TeamFilter{
		TeamAlias: req.GetTeamAlias(), Status: statusFrom(req.GetStatus()), UserID: req.GetUserId(), Deleted: req.GetIncludeDeleted(),
	}, key.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken(), Skip: int(req.GetSkip())}, req.GetIncludeTotal())
	if err != nil {
		return nil, err
	}
	teams := make([]*keysv1.Team, len(found.Items))
	for i, t := range found.Items {
		if teams[i], err = teamTo(t); err != nil {
			return nil, err
		}
	}
	return &keysv1.ListTeamsResponse{Teams: teams, NextPageToken: found.Next, TotalCount: found.Total}, nil
}

// UpdateTeam implements TeamService.
func (s *TeamServer) UpdateTeam(ctx context.Context, req *keysv1.UpdateTeamRequest) (*keysv1.UpdateTeamResponse, error) {
	metadata, err := metadataFrom(req.GetTeam().GetMetadata())
	if err != nil {
		return nil, err
	}
	in := req.GetTeam()
	t, revision, err := s.svc.UpdateTeam(ctx, caller(ctx), key.TeamUpdate{
		Fields: fields(req.GetUpdateMask(), "team_id"),
		Attributes: key.TeamAttributes{
			TeamID: in.GetTeamId(), TeamAlias: in.GetTeamAlias(), Models: in.GetModels(),
			Limits: limitsFrom(in.GetLimits()), Metadata: metadata,
		},
	})
	if err != nil {
		return nil, err
	}
	team, err := teamTo(t)
	return &keysv1.UpdateTeamResponse{Team: team, Revision: revision}, err
}

// DeleteTeam implements TeamService.
func (s *TeamServer) DeleteTeam(ctx context.Context, req *keysv1.DeleteTeamRequest) (*keysv1.DeleteTeamResponse, error) {
	d, err := s.svc.DeleteTeam(ctx, caller(ctx), req.GetTeamId())
	if err != nil {
		return nil, err
	}
	team, err := teamTo(d.Team)
	return &keysv1.DeleteTeamResponse{Team: team, RevokedKeys: int64(d.Revoked), Revision: d.Revision}, err
}

// SetTeamStatus implements TeamService.
func (s *TeamServer) SetTeamStatus(ctx context.Context, req *keysv1.SetTeamStatusRequest) (*keysv1.SetTeamStatusResponse, error) {
	t, revision, err := s.svc.SetTeamStatus(ctx, caller(ctx), key.StatusRequest{
		TeamID: req.GetTeamId(), Status: statusFrom(req.GetStatus()), Reason: req.GetReason(), Generation: req.GetGateGeneration(),
	})
	if err != nil {
		return nil, err
	}
	team, err := teamTo(t)
	return &keysv1.SetTeamStatusResponse{Team: team, Revision: revision, GateGeneration: t.GateGeneration}, err
}

func teamTo(t key.Team) (*keysv1.Team, error) {
	metadata, err := metadataTo(t.Metadata)
	if err != nil {
		return nil, err
	}
	return &keysv1.Team{
		TeamId: t.TeamID, TeamAlias: t.TeamAlias, Limits: limitsTo(t.Limits), Models: t.Models,
		Metadata: metadata, Status: statusTo(t.Status), StatusReason: t.StatusReason,
		CreatedAt: timestamppb.New(t.CreatedAt), UpdatedAt: timestamppb.New(t.UpdatedAt),
		DeletedAt: instant(t.DeletedAt),
	}, nil
}

// statusFrom is empty for a status that is unspecified or not known.
func statusFrom(s keysv1.TeamStatus) key.Status {
	switch s {
	case keysv1.TeamStatus_TEAM_STATUS_ACTIVE:
		return key.Active
	case keysv1.TeamStatus_TEAM_STATUS_BLOCKED:
		return key.Blocked
	case keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED:
		return key.Exhausted
	case keysv1.TeamStatus_TEAM_STATUS_SUSPENDED:
		return key.Suspended
	case keysv1.TeamStatus_TEAM_STATUS_UNSPECIFIED:
	}
	return ""
}

func statusTo(s key.Status) keysv1.TeamStatus {
	switch s {
	case key.Active:
		return keysv1.TeamStatus_TEAM_STATUS_ACTIVE
	case key.Blocked:
		return keysv1.TeamStatus_TEAM_STATUS_BLOCKED
	case key.Exhausted:
		return keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED
	case key.Suspended:
		return keysv1.TeamStatus_TEAM_STATUS_SUSPENDED
	}
	return keysv1.TeamStatus_TEAM_STATUS_UNSPECIFIED
}
