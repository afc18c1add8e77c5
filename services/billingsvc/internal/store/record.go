package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// eventColumns are the fields of billing.Event, of the table itself.
const eventColumns = `idempotency_key, organization_id, event_type, quantity, cost_nano_usd, price_nano_usd, markup,
	session_ids, coalesce(charge_id, '') as charge_id, log_id, seq, coalesce(metadata->>'model', '') as model,
	coalesce(metadata->>'corrects', '') as corrects, coalesce(metadata->>'reason', '') as reason, occurred_at, created_at`

// Record bills single events. The unique index alone could not keep a key
// unique, since it holds within a day only: the keys are locked.
func (s *Store) Record(ctx context.Context, rules billing.Rules, events []billing.Event, op *billing.Operation, now time.Time) ([]billing.Recorded, error) {
	var out []billing.Recorded
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		out = nil
		keys := keysOf(events)
		if err := lockKeys(ctx, tx, keys); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `select `+eventColumns+` from billing.billing_events where idempotency_key = any(@keys)`,
			pgx.StrictNamedArgs{"keys": keys})
		there, err := collect[billing.Event](rows, "look up events")
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, e := range there {
			known[e.IdempotencyKey] = true
			out = append(out, billing.Recorded{Event: e})
		}
		var fresh []billing.Event
		for _, e := range events {
			if !known[e.IdempotencyKey] {
				fresh = append(fresh, e)
				out = append(out, billing.Recorded{Event: e, Created: true})
			}
		}
		if len(fresh) == 0 {
			return nil
		}
		if _, err := bill(ctx, tx, rules, fresh, now); err != nil {
			return err
		}
		return writeOperation(ctx, tx, op)
	})
	if err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	return out, nil
}

func keysOf(events []billing.Event) []string {
	keys := make([]string, 0, len(events))
	for _, e := range events {
		keys = append(keys, e.IdempotencyKey)
	}
	return keys
}

// lockKeys keeps two callers off one key until the transaction ends, in sorted
// order.
func lockKeys(ctx context.Context, tx pgx.Tx, keys []string) error {
	_, err := tx.Exec(ctx, `
		select pg_advisory_xact_lock(h)
		from (select distinct hashtextextended(k, 7) as h from unnest(@keys::text[]) k order by 1) x`,
		pgx.StrictNamedArgs{"keys": keys})
	if err != nil {
		return fmt.Errorf("lock keys: %w", err)
	}
	return nil
}

// bill books events that are not part of a page and leaves them to the next sync
// to be frozen. It returns what was billed.
func bill(ctx context.Context, tx pgx.Tx, rules billing.Rules, events []billing.Event, now time.Time) (billing.Entry, error) {
	entry, err := freeze(ctx, tx, billing.Draft{Events: events, Deferred: true}, rules, now)
	if err != nil {
		return entry, err
	}
	if len(entry.Quarantined) > 0 && events[0].LogID == 0 {
		return entry, fault.Errorf(fault.Invalid, "the team's sum would be out of range")
	}
	entry.Quarantined = nil // rows that wait stay where they are
	return entry, write(ctx, tx, entry, now)
}
