package key

import (
	"context"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// TeamUpdate says what changes about a team: the attributes that Fields names,
// and nothing else. "limits" stands for all limits, "limits.x" for one.
type TeamUpdate struct {
	Fields     []string
	Attributes TeamAttributes // TeamID says which team
}

// UpdateTeam changes a team and returns it with the revision from which on
// watchers follow. An update that changes nothing is no change.
func (s *Service) UpdateTeam(ctx context.Context, by Caller, u TeamUpdate) (Team, int64, error) {
	teamID := u.Attributes.TeamID
	if err := needText("team_id", teamID, longestID); err != nil {
		return Team{}, 0, err
	}
	if len(u.Fields) == 0 {
		return Team{}, 0, fault.Errorf(fault.Invalid, "update_mask is required: name what changes")
	}
	var (
		team     Team
		revision int64
	)
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		before, err := lockTeam(ctx, tx, teamID)
		if err != nil {
			return err
		}
		if team, err = before.changed(u); err != nil {
			return err
		}
		if same(before, team) {
			revision, err = tx.Revision(ctx)
			return err
		}
		team.UpdatedAt = s.now()
		if err := writeTeam(ctx, tx, by, "team.update", before, team); err != nil {
			return err
		}
		revision, err = tx.Append(ctx, Event{TeamIDs: []string{teamID}, At: team.UpdatedAt})
		return err
	})
	return team, revision, err
}

// changed is the team after the update, which must be one that could be made.
func (t Team) changed(u TeamUpdate) (Team, error) {
	a := u.Attributes
	for _, field := range u.Fields {
		var err error
		switch field {
		case "team_alias":
			t.TeamAlias = a.TeamAlias
		case "models":
			t.Models = list(a.Models)
		default:
			err = setShared(field, shared{&t.Limits, &t.Metadata}, shared{&a.Limits, &a.Metadata})
		}
		if err != nil {
			return t, err
		}
	}
	return t, TeamAttributes{
		TeamID: t.TeamID, TeamAlias: t.TeamAlias, Models: t.Models, Limits: t.Limits, Metadata: t.Metadata,
	}.validate()
}

// lockTeam locks a team that must not be deleted.
func lockTeam(ctx context.Context, tx Tx, teamID string) (Team, error) {
	t, err := tx.LockTeam(ctx, teamID)
	if err == nil && t.DeletedAt != nil {
		err = ErrNotFound
	}
	return t, teamFault(err, teamID)
}

// DeletedTeam is a team that was deleted, how many keys that revoked, and the
// revision from which on no watcher takes them.
type DeletedTeam struct {
	Team     Team
	Revoked  int
	Revision int64
}

// DeleteTeam revokes a team's keys and deletes it. To delete a deleted team
// changes nothing.
func (s *Service) DeleteTeam(ctx context.Context, by Caller, teamID string) (DeletedTeam, error) {
	if err := needText("team_id", teamID, longestID); err != nil {
		return DeletedTeam{}, err
	}
	var out DeletedTeam
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		// Nobody can make a key for the team from here on.
		if err := tx.Hold(ctx, Hold{TeamID: teamID, Exclusive: true}); err != nil {
			return err
		}
		keys, err := tx.LockKeys(ctx, Selection{TeamID: teamID})
		if err != nil {
			return err
		}
		before, err := tx.LockTeam(ctx, teamID)
		if err != nil {
			return teamFault(err, teamID)
		}
		if out.Team = before; before.DeletedAt != nil {
			out.Revision, err = tx.Revision(ctx)
			return err
		}
		now := s.now()
		ended, err := end(ctx, tx, by, keys, now)
		if err != nil {
			return err
		}
		out.Revoked = len(ended)
		out.Team.DeletedAt, out.Team.UpdatedAt = &now, now
		if err := writeTeam(ctx, tx, by, "team.delete", before, out.Team); err != nil {
			return err
		}
		stop := Event{Stopped: true, Reason: "revoked", At: now}
		if _, err := announce(ctx, tx, ended, stop); err != nil {
			return err
		}
		stop.TeamIDs = []string{teamID}
		out.Revision, err = tx.Append(ctx, stop)
		return err
	})
	return out, err
}
