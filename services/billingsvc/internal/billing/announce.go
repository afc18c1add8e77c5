package billing

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Announcement is what keysvc has to hear of a team's gate.
type Announcement struct {
	TeamID     string
	Gate       Gate
	Generation int64
	Attempts   int // failures in a row before
}

// Keys is keysvc, which tells every proxy.
type Keys interface {
	// SetGate tells of a team's gate and returns the newest generation of it that
	// keysvc has heard of: if it is above this one, this one was not followed.
	// ErrBlocked when an administrator has stopped the team, which is left alone.
	// NotFound when it is not known.
	SetGate(ctx context.Context, a Announcement) (newest int64, err error)
}

// ErrBlocked means that an administrator has stopped the team.
var ErrBlocked = errors.New("team was blocked by an administrator")

// Announcer is where announcements wait.
type Announcer interface {
	// DueAnnouncements hands out teams that are due and makes them due again at
	// until, should nothing be heard.
	DueAnnouncements(ctx context.Context, now, until time.Time, limit int) ([]Announcement, error)
	// Announced records that keysvc has heard of a generation. A newer one
	// stays due.
	Announced(ctx context.Context, a Announcement, again time.Time, note string) error
	// AnnouncedBefore records that keysvc has heard of a generation that billing does
	// not know, since it was restored to before it: the team's gate counts on from
	// there, and is due at now.
	AnnouncedBefore(ctx context.Context, teamID string, generation int64, now time.Time) error
	// AnnounceFailed records why it has not, and makes the team due again.
	AnnounceFailed(ctx context.Context, a Announcement, again time.Time, note string) error
	// DueGates lists teams whose gate disagrees with its balance or the time.
	DueGates(ctx context.Context, now time.Time, overdraft int64) ([]string, error)
	// MoveGate locks a team, has move change its balance's gate, and writes it
	// with what is to be kept. NotFound when the team is not known and make is
	// false.
	MoveGate(ctx context.Context, teamID string, makeKnown bool, op *Operation, move func(*Balance) (Transition, bool)) (Balance, error)
}

const (
	announceBatch   = 100
	announceAtOnce  = 8
	announceTimeout = 5 * time.Second
	// announceHold is how long a replica has for what it took.
	announceHold = 15 * time.Second
	// announceAgain is how often a gate is repeated that keysvc has heard of:
	// should it have forgotten, or somebody have set it otherwise, it hears
	// again.
	announceAgain = 5 * time.Minute
	// longestWait bounds the wait after failures.
	longestWait = 30 * time.Second
)

// Announce tells keysvc of the gates that are due. It says whether there may be
// more. What fails stays due.
func (s *Service) Announce(ctx context.Context) (more bool, err error) {
	if s.keys == nil {
		return false, nil
	}
	now := s.now()
	due, err := s.store.DueAnnouncements(ctx, now, now.Add(announceHold), announceBatch)
	if err != nil {
		return false, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(announceAtOnce)
	errs := make([]error, len(due))
	for i, a := range due {
		g.Go(func() error {
			errs[i] = s.announce(ctx, a)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // the errors are in errs: one must not end the others
	return len(due) == announceBatch, errors.Join(errs...)
}

func (s *Service) announce(ctx context.Context, a Announcement) error {
	call, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	newest, err := s.keys.SetGate(call, a)
	now := s.now()
	switch {
	case err == nil && newest > a.Generation:
		return s.store.AnnouncedBefore(ctx, a.TeamID, newest, now)
	case err == nil:
		return s.store.Announced(ctx, a, now.Add(announceAgain), "")
	case errors.Is(err, ErrBlocked):
		return s.store.Announced(ctx, a, now.Add(announceHold), ErrBlocked.Error())
	case fault.KindOf(err) == fault.NotFound:
		return s.store.AnnounceFailed(ctx, a, now.Add(longestWait), "keysvc does not know the team")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	wait := min(200*time.Millisecond<<min(a.Attempts, 10), longestWait)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // it only spreads calls
	return errors.Join(err, s.store.AnnounceFailed(ctx, a, now.Add(wait), fault.Text(err)))
}

// CheckGates moves the gates that time or another process has left behind.
func (s *Service) CheckGates(ctx context.Context) error {
	now := s.now()
	teams, err := s.store.DueGates(ctx, now, int64(s.rules.Policy.Overdraft))
	if err != nil {
		return err
	}
	var faults []error
	for _, team := range teams {
		_, err := s.store.MoveGate(ctx, team, false, nil, func(b *Balance) (Transition, bool) {
			return s.rules.Policy.Move(b, CauseElapsed, "", now)
		})
		faults = append(faults, err)
	}
	if len(teams) > 0 {
		s.wake()
	}
	return errors.Join(faults...)
}

// Suspend closes a team's gate, whatever its balance, until Unsuspend.
func (s *Service) Suspend(ctx context.Context, teamID string, by By) (Balance, error) {
	if err := checkReason(by.Reason); err != nil {
		return Balance{}, err
	}
	return s.moveGate(ctx, teamID, CauseSuspend, by)
}

// Unsuspend ends a suspension; the balance decides where the team goes.
func (s *Service) Unsuspend(ctx context.Context, teamID string, by By) (Balance, error) {
	return s.moveGate(ctx, teamID, CauseUnsuspend, by)
}

func (s *Service) moveGate(ctx context.Context, teamID string, cause Cause, by By) (Balance, error) {
	if err := checkTeam(teamID); err != nil {
		return Balance{}, err
	}
	now := s.now()
	op := NewOperation(string(cause), teamID, by, map[string]any{}, now)
	b, err := s.store.MoveGate(ctx, teamID, cause == CauseSuspend, &op, func(b *Balance) (Transition, bool) {
		return s.rules.Policy.Move(b, cause, by.Reason, now)
	})
	if err != nil {
		return Balance{}, err
	}
	s.wake()
	return b, nil
}

// Woken is where a value comes when a gate may have changed.
func (s *Service) Woken() <-chan struct{} { return s.woken }

func (s *Service) wake() {
	select {
	case s.woken <- struct{}{}:
	default: // somebody is about to look already
	}
}
