package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// TeamMarkup is what a team pays for a dollar of cost from an instant on. It is
// never edited; of two for one instant the later one holds.
type TeamMarkup struct {
	MarkupID      string
	TeamID        string
	Markup        string // empty: the default holds again
	EffectiveFrom time.Time
	Actor         string
	Reason        string
	CreatedAt     time.Time
}

// Markups is where markups of teams are kept.
type Markups interface {
	// MarkupsOf returns all markups of the teams, by effective_from and then
	// by when they were set.
	MarkupsOf(ctx context.Context, teams []string) ([]TeamMarkup, error)
	SetMarkup(ctx context.Context, m TeamMarkup) error
	ListMarkups(ctx context.Context, teamID, before string, limit int) ([]TeamMarkup, error)
}

// tariff tells the markup of a team at an instant.
type tariff struct {
	standard Markup
	teams    map[string][]rate
}

// rate is a markup from an instant on.
type rate struct {
	from   time.Time
	markup Markup
}

// newTariff takes markups in the order of MarkupsOf.
func newTariff(standard Markup, list []TeamMarkup) (tariff, error) {
	t := tariff{standard, map[string][]rate{}}
	for _, m := range list {
		r := rate{m.EffectiveFrom, standard}
		if m.Markup != "" {
			var err error
			if r.markup, err = ParseMarkup(m.Markup); err != nil {
				return tariff{}, err
			}
		}
		t.teams[m.TeamID] = append(t.teams[m.TeamID], r)
	}
	return t, nil
}

func (t tariff) at(teamID string, when time.Time) Markup {
	m := t.standard
	for _, r := range t.teams[teamID] {
		if r.from.After(when) {
			break
		}
		m = r.markup
	}
	return m
}

// Draft rates a page. Every row becomes an event or is quarantined.
func (t tariff) Draft(p Page, now time.Time) Draft {
	d := Draft{Page: p}
	for _, r := range p.Rows {
		e, reason := t.at(r.TeamID, r.EndedAt).event(r, now)
		if reason != "" {
			d.Quarantined = append(d.Quarantined, Quarantined{r, reason})
			continue
		}
		d.Events = append(d.Events, e)
	}
	return d
}

// tariffOf reads the markups of the rows' teams.
func (s *Service) tariffOf(ctx context.Context, rows []Row) (tariff, error) {
	seen := map[string]bool{}
	var teams []string
	for _, r := range rows {
		if !seen[r.TeamID] {
			seen[r.TeamID] = true
			teams = append(teams, r.TeamID)
		}
	}
	list, err := s.store.MarkupsOf(ctx, teams)
	if err != nil {
		return tariff{}, err
	}
	return newTariff(s.rules.Markup, list)
}

// SetMarkup sets a team's markup from an instant on. Zero: from now on.
func (s *Service) SetMarkup(ctx context.Context, m TeamMarkup) (TeamMarkup, error) {
	if err := checkTeam(m.TeamID); err != nil {
		return TeamMarkup{}, err
	}
	if err := checkReason(m.Reason); err != nil {
		return TeamMarkup{}, err
	}
	if m.Markup != "" {
		parsed, err := ParseMarkup(m.Markup)
		if err != nil {
			return TeamMarkup{}, fault.Errorf(fault.Invalid, "markup %w", err)
		}
		m.Markup = parsed.String()
	}
	now := s.now()
	if m.EffectiveFrom.IsZero() {
		m.EffectiveFrom = now
	}
	m.MarkupID, m.CreatedAt = newUUID(now), now
	m.EffectiveFrom = m.EffectiveFrom.UTC().Truncate(time.Microsecond)
	return m, s.store.SetMarkup(ctx, m)
}

// ListMarkups lists markups of a team, or of all, newest first, from before an
// id on.
func (s *Service) ListMarkups(ctx context.Context, teamID, before string, limit int) ([]TeamMarkup, error) {
	return s.store.ListMarkups(ctx, teamID, before, limit)
}

// StandardMarkup is what teams pay that have no markup of their own.
func (s *Service) StandardMarkup() Markup { return s.rules.Markup }

func checkTeam(teamID string) error {
	if teamID == "" || len(teamID) > 200 {
		return fault.Errorf(fault.Invalid, "team_id is empty or longer than 200 bytes")
	}
	return nil
}
