package billing

import (
	"context"
	"encoding/json"
	"time"
)

// Operation is something that somebody did to the books, kept in the
// transaction that did it.
type Operation struct {
	OperationID string
	Action      string
	TeamID      string // empty: of no single team
	Actor       string
	Reason      string
	Details     json.RawMessage
	CreatedAt   time.Time
}

// By is who asks for something, and why.
type By struct {
	Actor  string
	Reason string
}

// NewOperation describes what is done. details must be encodable.
func NewOperation(action, teamID string, by By, details any, now time.Time) Operation {
	raw, err := json.Marshal(details)
	if err != nil {
		raw = []byte(`{}`) // a programming error that must not stop the operation
	}
	return Operation{newUUID(now), action, teamID, by.Actor, by.Reason, raw, now}
}

// HistoryQuery filters what is kept of the past, newest first.
type HistoryQuery struct {
	TeamID     string // empty: all
	Action     string // of operations; empty: all
	OnlyFaults bool   // of reconciliations
	Before     string // only ids before this one; empty: from the newest on
	Limit      int
}

// History is where the past is looked up.
type History interface {
	Operations(ctx context.Context, q HistoryQuery) ([]Operation, error)
	Transitions(ctx context.Context, q HistoryQuery) ([]Transition, error)
	Reconciliations(ctx context.Context, q HistoryQuery) ([]Reconciliation, error)
	TopUps(ctx context.Context, q HistoryQuery) ([]TopUp, error)
}

// Operations lists what people did, newest first.
func (s *Service) Operations(ctx context.Context, q HistoryQuery) ([]Operation, error) {
	return s.store.Operations(ctx, q)
}

// Transitions lists changes of gates, newest first.
func (s *Service) Transitions(ctx context.Context, q HistoryQuery) ([]Transition, error) {
	return s.store.Transitions(ctx, q)
}

// Reconciliations lists reconciliations, newest first.
func (s *Service) Reconciliations(ctx context.Context, q HistoryQuery) ([]Reconciliation, error) {
	return s.store.Reconciliations(ctx, q)
}

// TopUps lists top-ups, newest first.
func (s *Service) TopUps(ctx context.Context, q HistoryQuery) ([]TopUp, error) {
	return s.store.TopUps(ctx, q)
}
