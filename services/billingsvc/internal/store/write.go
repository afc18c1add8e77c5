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
		func() error { return writeBalances(ctx, tx, e.Balances) },
		func() error { return writeQuarantine(ctx, tx, e.Quarantined, now) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// writeCharges seals each charge over its new events and those that were only
// carried until now, writes it and gives the carried ones to it.
func writeCharges(ctx context.Context, tx pgx.Tx, e billing.Entry) error {
	if len(e.Charges) == 0 {
		return nil
	}
	items, err := carriedItems(ctx, tx, e.Charges)
	if err != nil {
		return err
	}
	for _, ev := range e.Events {
		items[ev.OrganizationID] = append(items[ev.OrganizationID], billing.Item{IdempotencyKey: ev.IdempotencyKey, PriceNanoUSD: ev.PriceNanoUSD})
	}
	var batch pgx.Batch
	for _, c := range e.Charges {
		c.Seal(items[c.TeamID])
		batch.Queue(`
			insert into billing.charges (charge_id, team_id, seq, amount_nano_usd, carried_nano_usd, event_count,
				checksum, state, frozen_at, due_at)
			values (@charge_id, @team_id, @seq, @amount, @carried, @event_count, @checksum, @state, @frozen_at, @due_at)`,
			pgx.StrictNamedArgs{
				"charge_id": c.ChargeID, "team_id": c.TeamID, "seq": c.Seq, "amount": int64(c.AmountNanoUSD),
				"carried": int64(c.CarriedNanoUSD), "event_count": c.EventCount, "checksum": c.Checksum,
				"state": c.State, "frozen_at": c.FrozenAt, "due_at": c.DueAt,
			})
		batch.Queue(`
			update billing.billing_events set charge_id = @charge_id
			where organization_id = @team_id and charge_id is null`,
			pgx.StrictNamedArgs{"charge_id": c.ChargeID, "team_id": c.TeamID})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write charges: %w", err)
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

// writeEvents inserts events. Freeze has left out what is on the books; a key
// that turns up all the same was written by another log meanwhile, and the page
// is tried again.
func writeEvents(ctx context.Context, tx pgx.Tx, events []billing.Event) error {
	n := len(events)
	if n == 0 {
		return nil
	}
	keys, teams, types, sessions := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	markups, metas, charges := make([]string, n), make([]string, n), make([]string, n)
	quantities, costs, prices := make([]int64, n), make([]int64, n), make([]int64, n)
	logs, seqs := make([]int64, n), make([]int64, n)
	occurred, created := make([]time.Time, n), make([]time.Time, n)
	for i, e := range events {
		meta, err := json.Marshal(metadata{
			Model: e.Model, LogID: e.LogID, Seq: e.Seq, KeyID: e.Row.KeyID,
			PriceVersion: e.Row.PriceVersion, Status: e.Row.Status, Usage: e.Row.Usage,
		})
		if err != nil {
			return fmt.Errorf("encode metadata: %w", err)
		}
		keys[i], teams[i], types[i], metas[i] = e.IdempotencyKey, e.OrganizationID, e.EventType, string(meta)
		markups[i], charges[i] = e.Markup, e.ChargeID
		quantities[i], costs[i], prices[i] = e.Quantity, int64(e.CostNanoUSD), int64(e.PriceNanoUSD)
		logs[i], seqs[i], occurred[i], created[i] = e.LogID, e.Seq, e.OccurredAt, e.CreatedAt
		if len(e.SessionIDs) > 0 {
			sessions[i] = e.SessionIDs[0] // a row has one at the most
		}
	}
	tag, err := tx.Exec(ctx, `
		insert into billing.billing_events (day, idempotency_key, organization_id, event_type, quantity,
			cost_nano_usd, price_nano_usd, markup, session_ids, metadata, charge_id, log_id, seq, occurred_at, created_at)
		select (occurred_at at time zone 'UTC')::date, idempotency_key, organization_id, event_type, quantity,
			cost_nano_usd, price_nano_usd, markup, array_remove(array[session_id], ''), metadata::jsonb,
			nullif(charge_id, ''), log_id, seq, occurred_at, created_at
		from unnest(@keys::text[], @teams::text[], @types::text[], @quantities::bigint[], @costs::bigint[],
			@prices::bigint[], @markups::text[], @sessions::text[], @metas::text[], @charges::text[],
			@logs::bigint[], @seqs::bigint[], @occurred::timestamptz[], @created::timestamptz[])
			as e (idempotency_key, organization_id, event_type, quantity, cost_nano_usd, price_nano_usd, markup,
				session_id, metadata, charge_id, log_id, seq, occurred_at, created_at)
		on conflict do nothing`,
		pgx.StrictNamedArgs{
			"keys": keys, "teams": teams, "types": types, "quantities": quantities, "costs": costs, "prices": prices,
			"markups": markups, "sessions": sessions, "metas": metas, "charges": charges, "logs": logs, "seqs": seqs,
			"occurred": occurred, "created": created,
		})
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return fault.Errorf(fault.Conflict, "an event of the page was written by another log meanwhile")
	}
	return nil
}

func writeBalances(ctx context.Context, tx pgx.Tx, balances []billing.Balance) error {
	var batch pgx.Batch
	for _, b := range balances {
		batch.Queue(`
			update billing.balances
			set billed_nano_usd = @billed, charged_nano_usd = @charged, carried_nano_usd = @carried, next_charge_seq = @next
			where team_id = @team_id`,
			pgx.StrictNamedArgs{
				"team_id": b.TeamID, "billed": int64(b.BilledNanoUSD), "charged": int64(b.ChargedNanoUSD),
				"carried": int64(b.CarriedNanoUSD), "next": b.NextChargeSeq,
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write balances: %w", err)
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
