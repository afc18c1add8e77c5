package billing

import (
	"context"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// EventAdjustment is the type of corrections.
const EventAdjustment = "adjustment"

// keyAdjustment begins the idempotency keys of corrections.
const keyAdjustment = "adjust:"

// Recorder is where single events are written.
type Recorder interface {
	// Record bills the events in one transaction: those whose key is unknown.
	// What is under a key already is returned as it is. It leaves them to the
	// next sync to be frozen. An operation, if there is one, is kept with them
	// when anything was written.
	Record(ctx context.Context, rules Rules, events []Event, op *Operation, now time.Time) ([]Recorded, error)
}

// Recorded is an event on the books.
type Recorded struct {
	Event   Event
	Created bool // this call wrote it
}

// Record bills something that is not on the spend ledger. The same event again
// changes nothing; another one under its key is a fault of kind Exists.
func (s *Service) Record(ctx context.Context, e Event) (Recorded, error) {
	now := s.now()
	if e.OccurredAt.IsZero() {
		e.OccurredAt = now
	}
	e.OccurredAt, e.CreatedAt, e.Markup = e.OccurredAt.UTC().Truncate(time.Microsecond), now, "1"
	if err := e.checkRecorded(now); err != nil {
		return Recorded{}, err
	}
	return s.recordOne(ctx, e, nil, now)
}

// clockSkew is how far ahead a caller's clock may be.
const clockSkew = 5 * time.Minute

func (e Event) checkRecorded(now time.Time) error {
	switch {
	case strings.HasPrefix(e.IdempotencyKey, SpendKey("")) || strings.HasPrefix(e.IdempotencyKey, keyAdjustment):
		return fault.Errorf(fault.Invalid, "idempotency_key begins with a reserved prefix")
	case e.EventType == EventType || e.EventType == EventAdjustment || !isName(e.EventType):
		return fault.Errorf(fault.Invalid, "event_type is not a name of 1 to 50 characters, or is reserved")
	case e.Quantity < 0:
		return fault.Errorf(fault.Invalid, "quantity is negative")
	case e.PriceNanoUSD < 0 || e.CostNanoUSD < 0:
		return fault.Errorf(fault.Invalid, "price_nano_usd or cost_nano_usd is negative: use AdjustBalance for corrections")
	case len(e.SessionIDs) > 20:
		return fault.Errorf(fault.Invalid, "session_ids has more than 20")
	case len(e.Extra) > 20:
		return fault.Errorf(fault.Invalid, "metadata has more than 20 pairs")
	}
	for _, id := range e.SessionIDs {
		if id == "" || len(id) > 200 {
			return fault.Errorf(fault.Invalid, "a session_id is empty or longer than 200 bytes")
		}
	}
	for k, v := range e.Extra {
		if len(k) > 200 || len(v) > 200 || k == "" {
			return fault.Errorf(fault.Invalid, "a name in metadata is empty, or a name or value is longer than 200 bytes")
		}
	}
	return e.checkKey(now)
}

// checkKey checks what every event from outside has.
func (e Event) checkKey(now time.Time) error {
	if err := checkTeam(e.OrganizationID); err != nil {
		return err
	}
	switch {
	case e.IdempotencyKey == "" || len(e.IdempotencyKey) > 200+len(keyAdjustment):
		return fault.Errorf(fault.Invalid, "idempotency_key is empty or longer than 200 bytes")
	case e.OccurredAt.After(now.Add(clockSkew)):
		return fault.Errorf(fault.Invalid, "occurred_at is in the future")
	case e.OccurredAt.Year() < 2000:
		return fault.Errorf(fault.Invalid, "occurred_at is before the year 2000")
	}
	return nil
}

// isName says whether s is 1 to 50 characters of a-z, 0-9, "_", "-" and ".".
func isName(s string) bool {
	return s != "" && len(s) <= 50 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == ""
}

// Adjustment asks for a correction of what a team was billed.
type Adjustment struct {
	TeamID         string
	IdempotencyKey string // the caller's
	PriceNanoUSD   money.NanoUSD
	Corrects       string // key of the event that is corrected; empty: none
	By
}

// Adjust corrects what a team was billed, by an event of its own. It is
// idempotent as Record is.
func (s *Service) Adjust(ctx context.Context, a Adjustment) (Recorded, error) {
	now := s.now()
	e := Event{
		IdempotencyKey: keyAdjustment + a.IdempotencyKey, OrganizationID: a.TeamID, EventType: EventAdjustment, PriceNanoUSD: a.PriceNanoUSD,
		Markup: "1", Corrects: a.Corrects, Reason: a.Reason, OccurredAt: now, CreatedAt: now,
	}
	switch {
	case a.PriceNanoUSD == 0:
		return Recorded{}, fault.Errorf(fault.Invalid, "price_nano_usd is 0")
	case a.IdempotencyKey == "":
		return Recorded{}, fault.Errorf(fault.Invalid, "idempotency_key is empty or longer than 200 bytes")
	}
	if err := checkReason(a.Reason); err != nil {
		return Recorded{}, err
	}
	if err := e.checkKey(now); err != nil {
		return Recorded{}, err
	}
	if err := s.checkCorrects(ctx, a); err != nil {
		return Recorded{}, err
	}
	op := NewOperation("adjust", a.TeamID, a.By, map[string]any{
		"idempotency_key": e.IdempotencyKey, "price_nano_usd": a.PriceNanoUSD, "corrects": a.Corrects,
	}, now)
	return s.recordOne(ctx, e, &op, now)
}

func (s *Service) checkCorrects(ctx context.Context, a Adjustment) error {
	if a.Corrects == "" {
		return nil
	}
	found, err := s.store.Events(ctx, EventQuery{TeamID: a.TeamID, IdempotencyKey: a.Corrects, Limit: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fault.Errorf(fault.NotFound, "team %s has no event %s", a.TeamID, a.Corrects)
	}
	return nil
}

func (s *Service) recordOne(ctx context.Context, e Event, op *Operation, now time.Time) (Recorded, error) {
	list, err := s.store.Record(ctx, s.rules, []Event{e}, op, now)
	if err != nil {
		return Recorded{}, err
	}
	r := list[0]
	if !r.Created && !r.Event.same(e) {
		return Recorded{}, fault.Errorf(fault.Exists, "another event is recorded under the key %s", e.IdempotencyKey)
	}
	s.wake()
	return r, nil
}

// same says whether two events bill the same. The time is left out: a caller
// that lets it be now repeats itself later.
func (e Event) same(o Event) bool {
	return e.OrganizationID == o.OrganizationID && e.EventType == o.EventType && e.Quantity == o.Quantity &&
		e.PriceNanoUSD == o.PriceNanoUSD && e.CostNanoUSD == o.CostNanoUSD && e.Corrects == o.Corrects
}
