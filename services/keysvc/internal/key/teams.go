package key

import (
	"context"
	"errors"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// EnsureTeam makes the team when it is unknown, and otherwise returns it as it
// is. The second result says whether this call made it.
func (s *Service) EnsureTeam(ctx context.Context, by Caller, a TeamAttributes) (Team, bool, error) {
	if err := a.validate(); err != nil {
		return Team{}, false, err
	}
	team, created := a.new(s.now()), false
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		created, err = ensure(ctx, tx, by, team)
		return err
	})
	if err != nil || created {
		return team, created, err
	}
	team, err = s.Team(ctx, a.TeamID)
	return team, false, err
}

// ensure inserts a team that is unknown, with its audit row.
func ensure(ctx context.Context, tx Tx, by Caller, t Team) (created bool, err error) {
	if created, err = tx.InsertTeam(ctx, t); err != nil || !created {
		return false, err
	}
	return true, tx.Audit(ctx, Change{By: by, At: t.CreatedAt, Action: "team.create", Entity: t.TeamID, After: t})
}

// Team finds a team.
func (s *Service) Team(ctx context.Context, teamID string) (Team, error) {
	if err := needText("team_id", teamID, longestID); err != nil {
		return Team{}, err
	}
	t, err := s.store.Team(ctx, teamID)
	return t, teamFault(err, teamID)
}

// Teams lists teams by id and returns the token of the next page.
func (s *Service) Teams(ctx context.Context, p Page) ([]Team, string, error) {
	after, size, err := p.read()
	if err != nil {
		return nil, "", err
	}
	teams, err := s.store.Teams(ctx, after, size+1)
	if err != nil || len(teams) <= size {
		return teams, "", err
	}
	return teams[:size], pageToken(teams[size-1].TeamID), nil
}

// StatusRequest asks to set a team's gate. An empty reason becomes a text by
// status; an open gate has none.
type StatusRequest struct {
	TeamID string
	Status Status
	Reason string // what a user whose request is refused reads
}

// SetTeamStatus opens or closes the team's gate and returns the revision from
// which on watchers follow it.
func (s *Service) SetTeamStatus(ctx context.Context, by Caller, r StatusRequest) (Team, int64, error) {
	text, ok := r.Status.reason()
	if !ok {
		return Team{}, 0, fault.Errorf(fault.Invalid, "status is required: active, blocked, exhausted or suspended")
	}
	for _, err := range []error{needText("team_id", r.TeamID, longestID), checkText("reason", r.Reason, longestName)} {
		if err != nil {
			return Team{}, 0, err
		}
	}
	if r.Reason != "" && r.Status != Active {
		text = r.Reason
	}
	var (
		team     Team
		revision int64
	)
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if team, err = tx.LockTeam(ctx, r.TeamID); err != nil {
			return teamFault(err, r.TeamID)
		}
		if team.Status == r.Status && team.StatusReason == text {
			revision, err = tx.Revision(ctx)
			return err
		}
		before := team
		team.Status, team.StatusReason, team.UpdatedAt = r.Status, text, s.now()
		revision, err = setStatus(ctx, tx, by, before, team)
		return err
	})
	return team, revision, err
}

// setStatus writes a changed status. It stops the team's streams unless the
// gate is open now.
func setStatus(ctx context.Context, tx Tx, by Caller, before, after Team) (int64, error) {
	if err := tx.UpdateTeam(ctx, after); err != nil {
		return 0, err
	}
	change := Change{By: by, At: after.UpdatedAt, Action: "team.status", Entity: after.TeamID, Before: before, After: after}
	if err := tx.Audit(ctx, change); err != nil {
		return 0, err
	}
	e := Event{TeamIDs: []string{after.TeamID}, At: after.UpdatedAt}
	if after.Status != Active {
		e.Stopped, e.Reason = true, string(after.Status)
	}
	return tx.Append(ctx, e)
}

// teamFault names the team that was not found.
func teamFault(err error, teamID string) error {
	if errors.Is(err, ErrNotFound) {
		return fault.Errorf(fault.NotFound, "team %s not found", teamID)
	}
	return err
}
