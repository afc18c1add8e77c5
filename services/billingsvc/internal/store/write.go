package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// write puts an entry into the tables, charges first: events point to them.
func write(ctx context.Context, tx pgx.Tx, e billing.Entry, now time.Time) error {
	for _, step := range []func() error{
		func() error { return writeCharges(ctx, tx, e) },
		func() error { return writeEvents(ctx, tx, e.Events) },
		func() error { return writeBalances(ctx, tx, e.Balances, now) },
		func() error { return writeTransitions(ctx, tx, e.Transitions) },
		func() error { return writeGrants(ctx, tx, e.Grants) },
		func() error { return writeQuarantine(ctx, tx, e.Quarantined, now) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// writeCharges seals each charge over its new events and those that were only
// carried until now, which go to the team's first, writes it and gives the
// carried ones to it.
func writeCharges(ctx context.Context, tx pgx.Tx, e billing.Entry) error {
	if len(e.Charges) == 0 {
		return nil
	}
	carried, err := carriedItems(ctx, tx, e.Charges)
	if err != nil {
		return err
	}
	items := make(map[string][]billing.Item, len(e.Charges))
	for _, ev := range e.Events {
		if ev.ChargeID != "" {
			items[ev.ChargeID] = append(items[ev.ChargeID], billing.Item{IdempotencyKey: ev.IdempotencyKey, PriceNanoUSD: ev.PriceNanoUSD})
		}
	}
	given := chargeRows{}
	takers := map[string]string{} // team → the charge that takes what is carried
	for _, c := range e.Charges {
		own := items[c.ChargeID]
		if _, taken := takers[c.TeamID]; !taken {
			takers[c.TeamID] = c.ChargeID
			own = append(own, carried[c.TeamID]...)
		}
		c.Seal(own)
		given.add(c)
	}
	if err := given.insert(ctx, tx); err != nil {
		return err
	}
	return giveCarried(ctx, tx, carried, takers)
}

// chargeRows are the columns of new charges.
type chargeRows struct {
	ids, teams, checksums, states, errors []string
	seqs, amounts, carries, counts        []int64
	frozen                                time.Time
}

func (r *chargeRows) add(c billing.Charge) {
	r.ids, r.teams, r.checksums = append(r.ids, c.ChargeID), append(r.teams, c.TeamID), append(r.checksums, c.Checksum)
	r.states, r.errors = append(r.states, string(c.State)), append(r.errors, c.LastError)
	r.seqs, r.counts = append(r.seqs, c.Seq), append(r.counts, c.EventCount)
	r.amounts, r.carries = append(r.amounts, int64(c.AmountNanoUSD)), append(r.carries, int64(c.CarriedNanoUSD))
	r.frozen = c.FrozenAt
}

func (r *chargeRows) insert(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		insert into billing.charges (charge_id, team_id, seq, amount_nano_usd, carried_nano_usd, event_count,
			checksum, state, last_error, frozen_at, due_at)
		select charge_id, team_id, seq, amount, carried, event_count, checksum, state, last_error, @frozen, @frozen
		from unnest(@ids::text[], @teams::text[], @seqs::bigint[], @amounts::bigint[], @carries::bigint[],
			@counts::bigint[], @checksums::text[], @states::text[], @errors::text[])
			as c (charge_id, team_id, seq, amount, carried, event_count, checksum, state, last_error)
		order by team_id, seq -- in which everybody comes to the queue`,
		pgx.StrictNamedArgs{
			"ids": r.ids, "teams": r.teams, "seqs": r.seqs, "amounts": r.amounts, "carries": r.carries, "counts": r.counts,
			"checksums": r.checksums, "states": r.states, "errors": r.errors, "frozen": r.frozen,
		})
	if err != nil {
		return fmt.Errorf("write charges: %w", err)
	}
	return nil
}

// giveCarried gives carried events to the charges that take them.
func giveCarried(ctx context.Context, tx pgx.Tx, carried map[string][]billing.Item, takers map[string]string) error {
	var teams, ids []string
	for team := range carried {
		teams, ids = append(teams, team), append(ids, takers[team])
	}
	if len(teams) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		update billing.billing_events e set charge_id = t.charge_id
		from unnest(@teams::text[], @ids::text[]) as t (team_id, charge_id)
		where e.organization_id = t.team_id and e.charge_id is null`,
		pgx.StrictNamedArgs{"teams": teams, "ids": ids})
	if err != nil {
		return fmt.Errorf("give carried events to their charges: %w", err)
	}
	return nil
}

// carriedItems returns, by team, the events that no charge has taken yet.
func carriedItems(ctx context.Context, tx pgx.Tx, charges []billing.Charge) (map[string][]billing.Item, error) {
	type carried struct {
		OrganizationID string
		billing.Item
	}
	teams := make([]string, 0, len(charges))
	for _, c := range charges {
		teams = append(teams, c.TeamID)
	}
	rows, _ := tx.Query(ctx, `
		select organization_id, idempotency_key, price_nano_usd
		from billing.billing_events
		where organization_id = any(@teams) and charge_id is null`,
		pgx.StrictNamedArgs{"teams": teams})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[carried])
	if err != nil {
		return nil, fmt.Errorf("read carried events: %w", err)
	}
	items := map[string][]billing.Item{}
	for _, c := range list {
		items[c.OrganizationID] = append(items[c.OrganizationID], c.Item)
	}
	return items, nil
}

// metadata is what an event keeps of its row besides its columns.
type metadata struct {
	Model        string        `json:"model"`
	LogID        int64         `json:"log_id"`
	Seq          int64         `json:"seq"`
	KeyID        string        `json:"key_id,omitempty"`
	PriceVersion string        `json:"price_version,omitempty"`
	Status       string        `json:"status,omitempty"`
	Usage        billing.Usage `json:"usage"`
}

// recordedMetadata is what an event that is not from the ledger keeps.
type recordedMetadata struct {
	Corrects string            `json:"corrects,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Extra    map[string]string `json:"extra,omitempty"`
}

func metadataOf(e billing.Event) (string, error) {
	var meta any = metadata{
		Model: e.Model, LogID: e.LogID, Seq: e.Seq, KeyID: e.Row.KeyID,
		PriceVersion: e.Row.PriceVersion, Status: e.Row.Status, Usage: e.Row.Usage,
	}
	if e.LogID == 0 {
		meta = recordedMetadata{e.Corrects, e.Reason, e.Extra}
	}
	raw, err := json.Marshal(meta)
	if err != nil {
		return "", fmt.Errorf("encode metadata: %w", err)
	}
	return string(raw), nil
}

// sessionsOf returns a single session as it is and several as JSON.
func sessionsOf(e billing.Event) (one, several string, err error) {
	switch len(e.SessionIDs) {
	case 0:
		return "", "", nil
	case 1:
		return e.SessionIDs[0], "", nil
	}
	raw, err := json.Marshal(e.SessionIDs)
	if err != nil {
		return "", "", fmt.Errorf("encode sessions: %w", err)
	}
	return "", string(raw), nil
}

// eventRows are the columns of new events.
type eventRows struct {
	keys, teams, types, markups, metas, charges, session, sessions []string
	quantities, costs, prices, logs, seqs                          []int64
	occurred, created                                              []time.Time
}

func (r *eventRows) add(e billing.Event) error {
	meta, err := metadataOf(e)
	if err != nil {
		return err
	}
	one, several, err := sessionsOf(e)
	if err != nil {
		return err
	}
	r.keys, r.teams, r.types = append(r.keys, e.IdempotencyKey), append(r.teams, e.OrganizationID), append(r.types, e.EventType)
	r.markups, r.metas, r.charges = append(r.markups, e.Markup), append(r.metas, meta), append(r.charges, e.ChargeID)
	r.session, r.sessions = append(r.session, one), append(r.sessions, several)
	r.quantities, r.costs = append(r.quantities, e.Quantity), append(r.costs, int64(e.CostNanoUSD))
	r.prices, r.logs, r.seqs = append(r.prices, int64(e.PriceNanoUSD)), append(r.logs, e.LogID), append(r.seqs, e.Seq)
	r.occurred, r.created = append(r.occurred, e.OccurredAt), append(r.created, e.CreatedAt)
	return nil
}

// writeEvents inserts events. Freeze has left out what is on the books; a key
// that turns up all the same was written by another log meanwhile, and the page
// is tried again.
func writeEvents(ctx context.Context, tx pgx.Tx, events []billing.Event) error {
	if len(events) == 0 {
		return nil
	}
	var r eventRows
	for _, e := range events {
		if err := r.add(e); err != nil {
			return err
		}
	}
	tag, err := tx.Exec(ctx, `
		insert into billing.billing_events (day, idempotency_key, organization_id, event_type, quantity,
			cost_nano_usd, price_nano_usd, markup, session_ids, metadata, charge_id, log_id, seq, occurred_at, created_at)
		select (occurred_at at time zone 'UTC')::date, idempotency_key, organization_id, event_type, quantity,
			cost_nano_usd, price_nano_usd, markup,
			case when sessions = '' then array_remove(array[session_id], '')
				else array(select jsonb_array_elements_text(sessions::jsonb)) end,
			metadata::jsonb, nullif(charge_id, ''), log_id, seq, occurred_at, created_at
		from unnest(@keys::text[], @teams::text[], @types::text[], @quantities::bigint[], @costs::bigint[],
			@prices::bigint[], @markups::text[], @session::text[], @sessions::text[], @metas::text[], @charges::text[],
			@logs::bigint[], @seqs::bigint[], @occurred::timestamptz[], @created::timestamptz[])
			as e (idempotency_key, organization_id, event_type, quantity, cost_nano_usd, price_nano_usd, markup,
				session_id, sessions, metadata, charge_id, log_id, seq, occurred_at, created_at)
		on conflict do nothing`,
		pgx.StrictNamedArgs{
			"keys": r.keys, "teams": r.teams, "types": r.types, "quantities": r.quantities, "costs": r.costs, "prices": r.prices,
			"markups": r.markups, "session": r.session, "sessions": r.sessions, "metas": r.metas, "charges": r.charges,
			"logs": r.logs, "seqs": r.seqs, "occurred": r.occurred, "created": r.created,
		})
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if tag.RowsAffected() != int64(len(events)) {
		return fault.Errorf(fault.Conflict, "an event was written under the same key meanwhile; try again")
	}
	return nil
}

func writeQuarantine(ctx context.Context, tx pgx.Tx, rows []billing.Quarantined, now time.Time) error {
	var batch pgx.Batch
	for _, q := range rows {
		raw, err := json.Marshal(q.Row)
		if err != nil {
			return fmt.Errorf("encode row: %w", err)
		}
		batch.Queue(`
			insert into billing.quarantine (log_id, seq, request_id, team_id, cost_nano_usd, reason, row, created_at)
			values (@log_id, @seq, @request_id, @team_id, @cost, @reason, @row, @now)
			on conflict do nothing`,
			pgx.StrictNamedArgs{
				"log_id": q.Row.LogID, "seq": q.Row.Seq, "request_id": q.Row.RequestID, "team_id": q.Row.TeamID,
				"cost": int64(q.Row.CostNanoUSD), "reason": q.Reason, "row": raw, "now": now,
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write quarantine: %w", err)
	}
	return nil
}
