package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Pause is a stop of posting.
type Pause struct {
	TeamID   string // empty: everything
	Actor    string
	Reason   string
	PausedAt time.Time
}

// Pauses is where pauses are kept.
type Pauses interface {
	Pause(ctx context.Context, p Pause, op Operation) error
	Resume(ctx context.Context, teamID string, op Operation) (bool, error)
	Pauses(ctx context.Context) ([]Pause, error)
}

// Pause stops the posting of a team's charges, or, without a team, of all.
func (s *Service) Pause(ctx context.Context, teamID string, by By) (Pause, error) {
	if len(teamID) > 200 {
		return Pause{}, fault.Errorf(fault.Invalid, "team_id is longer than 200 bytes")
	}
	if err := checkReason(by.Reason); err != nil {
		return Pause{}, err
	}
	p := Pause{TeamID: teamID, Actor: by.Actor, Reason: by.Reason, PausedAt: s.now()}
	return p, s.store.Pause(ctx, p, NewOperation("pause", teamID, by, map[string]any{}, p.PausedAt))
}

// Resume ends a pause and says whether there was one.
func (s *Service) Resume(ctx context.Context, teamID string, by By) (bool, error) {
	return s.store.Resume(ctx, teamID, NewOperation("resume", teamID, by, map[string]any{}, s.now()))
}

// Pauses lists what is paused.
func (s *Service) Pauses(ctx context.Context) ([]Pause, error) { return s.store.Pauses(ctx) }
