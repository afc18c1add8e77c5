package key

import (
	"context"
	"errors"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// EnsureTeam makes the team when it is unknown or was deleted, and otherwise
// returns it as it is. The second result says whether this call made it.
func (s *Service) EnsureTeam(ctx context.Context, by Caller, a TeamAttributes) (Team, bool, error) {
	if err := a.validate(); err != nil {
		return Team{}, false, err
	}
	t, err := s.store.Team(ctx, a.TeamID)
	if err == nil && t.DeletedAt == nil || err != nil && !errors.Is(err, ErrNotFound) {
		return t, false, err
	}
	created := false
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.Hold(ctx, Hold{TeamID: a.TeamID, Exclusive: true}); err != nil {
			return err
		}
		t = a.new(s.now())
		inserted, err := ensure(ctx, tx, by, t)
		if created = inserted == Inserted; err != nil || created {
			return err
		}
		before, err := tx.LockTeam(ctx, a.TeamID)
		if err != nil {
			return err
		}
		if inserted == Existed { // somebody was faster
			t = before
			return nil
		}
		created = true
		return writeTeam(ctx, tx, by, "team.create", before, t)
	})
	return t, created, err
}

// ensure inserts a team that there is nothing of, with its audit row.
func ensure(ctx context.Context, tx Tx, by Caller, t Team) (Insertion, error) {
	inserted, err := tx.InsertTeam(ctx, t)
	if err != nil || inserted != Inserted {
		return inserted, err
	}
	return inserted, tx.Audit(ctx, Change{By: by, At: t.CreatedAt, Action: "team.create", Entity: t.TeamID, After: t})
}

// writeTeam writes a changed team and its audit row.
func writeTeam(ctx context.Context, tx Tx, by Caller, action string, before, after Team) error {
	if err := tx.UpdateTeam(ctx, after); err != nil {
		return err
	}
	return tx.Audit(ctx, Change{By: by, At: after.UpdatedAt, Action: action, Entity: after.TeamID, Before: before, After: after})
}

// Team finds a team.
func (s *Service) Team(ctx context.Context, teamID string) (Team, error) {
	if err := needText("team_id", teamID, longestID); err != nil {
		return Team{}, err
	}
	t, err := s.store.Team(ctx, teamID)
	return t, teamFault(err, teamID)
}

// TeamFilter says which teams to list. Empty fields do not filter.
type TeamFilter struct {
	TeamAlias string
	Status    Status
	UserID    string // a session that has, or had, a key of the team
	Deleted   bool   // also deleted teams
}

// Teams lists teams by id.
func (s *Service) Teams(ctx context.Context, f TeamFilter, p Page, count bool) (Listed[Team], error) {
	last, size, err := p.read()
	if err != nil {
		return Listed[Team]{}, err
	}
	for _, err := range []error{checkText("team_alias", f.TeamAlias, longestName), checkText("user_id", f.UserID, longestID)} {
		if err != nil {
			return Listed[Team]{}, err
		}
	}
	slice := Slice{Skip: p.Skip, Limit: size + 1}
	if last != "" {
		slice.Behind = &Cursor{ID: last}
	}
	var out Listed[Team]
	if out.Items, err = s.store.Teams(ctx, f, slice); err != nil {
		return out, err
	}
	if len(out.Items) > size {
		out.Items = out.Items[:size]
		out.Next = pageToken(out.Items[size-1].TeamID)
	}
	if count {
		out.Total = new(int64)
		*out.Total, err = s.store.CountTeams(ctx, f)
	}
	return out, err
}

// StatusRequest asks to set a team's gate. An empty reason becomes a text by
// status; an open gate has none.
type StatusRequest struct {
	TeamID string
	Status Status
	Reason string // what a user whose request is refused reads
	// Generation counts billing's changes of the team's gate; zero: an administrator
	// asks.
	Generation int64
}

// SetTeamStatus opens or closes the team's gate and returns the revision from
// which on watchers follow it. Billing's changes are followed in their order, and
// not while the team is blocked: billing must not open what it did not close.
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
	if r.Generation < 0 {
		return Team{}, 0, fault.Errorf(fault.Invalid, "gate_generation is negative")
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
		if team, err = lockTeam(ctx, tx, r.TeamID); err != nil {
			return err
		}
		before := team
		switch {
		case r.Generation > 0 && team.Status == Blocked:
			return fault.Errorf(fault.Precondition, "team %s is blocked by an administrator, who has to unblock it", r.TeamID)
		case r.Generation > 0 && r.Generation < team.GateGeneration:
			revision, err = tx.Revision(ctx)
			return err
		}
		team.GateGeneration = max(team.GateGeneration, r.Generation)
		if team.Status == r.Status && team.StatusReason == text {
			if team.GateGeneration > before.GateGeneration {
				if err := tx.UpdateTeam(ctx, team); err != nil {
					return err
				}
			}
			revision, err = tx.Revision(ctx)
			return err
		}
		team.Status, team.StatusReason, team.UpdatedAt = r.Status, text, s.now()
		revision, err = setStatus(ctx, tx, by, before, team)
		return err
	})
	return team, revision, err
}

// setStatus writes a changed status. It stops the team's streams unless the
// gate is open now.
func setStatus(ctx context.Context, tx Tx, by Caller, before, after Team) (int64, error) {
	if err := writeTeam(ctx, tx, by, "team.status", before, after); err != nil {
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
