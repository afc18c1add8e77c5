package key

import (
	"encoding/json"
	"time"
)

// Team is an organisation. Its JSON is what audit rows show.
type Team struct {
	TeamID    string   `json:"team_id"`
	TeamAlias string   `json:"team_alias"`
	Models    []string `json:"models"`
	Limits
	Metadata     json.RawMessage `json:"metadata"` // an object, never nil
	Status       Status          `json:"status"`
	StatusReason string          `json:"status_reason"`
	// GateGeneration is the newest change of the gate that billing has told of.
	GateGeneration int64      `json:"-"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	DeletedAt      *time.Time `json:"deleted_at"` // nil: it was not
}

// Status is a team's gate.
type Status string

// The states of a gate. Only Active admits requests.
const (
	Active    Status = "active"
	Blocked   Status = "blocked"   // by an administrator
	Exhausted Status = "exhausted" // the credits are used up
	Suspended Status = "suspended" // by billing
)

// reason is what a refused user reads when nobody said anything better. The
// second result says whether the status exists.
func (s Status) reason() (string, bool) {
	switch s {
	case Active:
		return "", true
	case Blocked:
		return "The organisation is blocked by an administrator.", true
	case Exhausted:
		return "The organisation's credits are used up.", true
	case Suspended:
		return "The organisation is suspended by billing.", true
	}
	return "", false
}

// TeamAttributes are what a caller chooses about a team.
type TeamAttributes struct {
	TeamID, TeamAlias string
	Models            []string
	Limits            Limits
	Metadata          json.RawMessage // nil: none
}

func (a TeamAttributes) validate() error {
	for _, err := range []error{
		needText("team_id", a.TeamID, longestID),
		checkText("team_alias", a.TeamAlias, longestName),
		checkList("models", a.Models, mostModels),
		a.Limits.validate(),
		checkMetadata(a.Metadata),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// new makes an active team of these attributes at now.
func (a TeamAttributes) new(now time.Time) Team {
	return Team{
		TeamID: a.TeamID, TeamAlias: a.TeamAlias, Models: list(a.Models), Limits: a.Limits,
		Metadata: object(a.Metadata), Status: Active, CreatedAt: now, UpdatedAt: now,
	}
}
