package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Book writes a draft in one transaction. The cursor's lock is what keeps two
// replicas off one log; the balances are locked in sorted order, so that pages
// of different logs cannot deadlock.
func (s *Store) Book(ctx context.Context, d billing.Draft, rules billing.Rules, now time.Time) (billing.Booked, error) {
	// On its own and before the transaction: inside one, an insert would wait
	// for another replica's to commit.
	_, err := s.db.Exec(ctx, `insert into billing.cursors (log_id, updated_at) values (@log_id, @now) on conflict do nothing`,
		pgx.StrictNamedArgs{"log_id": d.Page.LogID, "now": now})
	if err != nil {
		return billing.Booked{}, fmt.Errorf("make cursor: %w", err)
	}
	var booked billing.Booked
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		booked = billing.Booked{}
		_, err := tx.Exec(ctx, `select set_config('idle_in_transaction_session_timeout', @stall, true)`,
			pgx.StrictNamedArgs{"stall": strconv.FormatInt(s.Stall.Milliseconds(), 10)})
		if err != nil {
			return fmt.Errorf("bound a stall: %w", err)
		}
		err = tx.QueryRow(ctx, `select seq from billing.cursors where log_id = @log_id for update skip locked`,
			pgx.StrictNamedArgs{"log_id": d.Page.LogID}).Scan(&booked.Seq)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			booked.Held = true
			return nil
		case err != nil:
			return fmt.Errorf("lock cursor: %w", err)
		case booked.Seq != d.Page.AfterSeq:
			booked.Moved = true
			return nil
		}
		entry, err := freeze(ctx, tx, d, rules, now)
		if err != nil {
			return err
		}
		if err := write(ctx, tx, entry, now); err != nil {
			return err
		}
		booked.Seq = d.Page.EndSeq()
		booked.Result = billing.Result{
			Rows: int64(len(d.Page.Rows)), Events: int64(len(entry.Events)),
			Charges: int64(len(entry.Charges)), Quarantined: int64(len(entry.Quarantined)),
		}
		return advance(ctx, tx, d.Page, now)
	})
	if err != nil {
		return billing.Booked{}, fmt.Errorf("book rows %d to %d of log %d: %w", d.Page.AfterSeq+1, d.Page.EndSeq(), d.Page.LogID, err)
	}
	return booked, nil
}

// freeze locks what the decision depends on and takes it.
func freeze(ctx context.Context, tx pgx.Tx, d billing.Draft, rules billing.Rules, now time.Time) (billing.Entry, error) {
	teams, keys := make([]string, 0, len(d.Events)), make([]string, 0, len(d.Events))
	for _, e := range d.Events {
		teams, keys = append(teams, e.OrganizationID), append(keys, e.IdempotencyKey)
	}
	slices.Sort(teams)
	balances, err := lockBalances(ctx, tx, slices.Compact(teams))
	if err != nil {
		return billing.Entry{}, err
	}
	known, err := places(ctx, tx, keys)
	if err != nil {
		return billing.Entry{}, err
	}
	return rules.Freeze(d, known, balances, now), nil
}

// lockBalances makes missing balances and locks them all, in sorted order.
func lockBalances(ctx context.Context, tx pgx.Tx, teams []string) (map[string]billing.Balance, error) {
	_, err := tx.Exec(ctx, `
		insert into billing.balances (team_id)
		select t from unnest(@teams::text[]) t order by t collate "C"
		on conflict do nothing`,
		pgx.StrictNamedArgs{"teams": teams})
	if err != nil {
		return nil, fmt.Errorf("make balances: %w", err)
	}
	rows, _ := tx.Query(ctx, `
		select `+balanceColumns+`
		from billing.balances b
		where b.team_id = any(@teams)
		order by b.team_id
		for update`,
		pgx.StrictNamedArgs{"teams": teams})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Balance])
	if err != nil {
		return nil, fmt.Errorf("lock balances: %w", err)
	}
	balances := make(map[string]billing.Balance, len(list))
	for _, b := range list {
		balances[b.TeamID] = b
	}
	return balances, nil
}

// lockBalance locks one balance. NotFound when the team is not known.
func lockBalance(ctx context.Context, tx pgx.Tx, teamID string) (billing.Balance, error) {
	rows, _ := tx.Query(ctx, `select `+balanceColumns+` from billing.balances b where b.team_id = @team_id for update`,
		pgx.StrictNamedArgs{"team_id": teamID})
	b, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.Balance])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return b, fault.Errorf(fault.NotFound, "team %s is not known to billing", teamID)
	case err != nil:
		return b, fmt.Errorf("lock balance: %w", err)
	}
	return b, nil
}

// places tells which of the keys are on the books, and from which rows.
func places(ctx context.Context, tx pgx.Tx, keys []string) (map[string]billing.Place, error) {
	type placed struct {
		IdempotencyKey string
		LogID, Seq     int64
	}
	rows, _ := tx.Query(ctx, `
		select idempotency_key, log_id, seq
		from billing.billing_events
		where idempotency_key = any(@keys)`,
		pgx.StrictNamedArgs{"keys": keys})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[placed])
	if err != nil {
		return nil, fmt.Errorf("look up events: %w", err)
	}
	known := make(map[string]billing.Place, len(list))
	for _, p := range list {
		known[p.IdempotencyKey] = billing.Place{LogID: p.LogID, Seq: p.Seq}
	}
	return known, nil
}

// advance moves the cursor to the page's end.
func advance(ctx context.Context, tx pgx.Tx, p billing.Page, now time.Time) error {
	_, err := tx.Exec(ctx, `
		update billing.cursors
		set seq = @seq, closed = @closed, updated_at = @now
		where log_id = @log_id`,
		pgx.StrictNamedArgs{"log_id": p.LogID, "seq": p.EndSeq(), "closed": p.Drained(), "now": now})
	if err != nil {
		return fmt.Errorf("advance cursor: %w", err)
	}
	return nil
}

// freezeTeams is how many teams FreezeCarried does in one transaction.
const freezeTeams = 200

// FreezeCarried freezes what teams carry: events that were recorded since the
// last sync. It walks the teams in order, so that it ends while new events come.
func (s *Store) FreezeCarried(ctx context.Context, rules billing.Rules, now time.Time) (int64, error) {
	var frozen int64
	for after := ""; ; {
		rows, _ := s.db.Query(ctx, `
			select team_id from billing.balances
			where carried_nano_usd >= 10 and team_id > @after
			order by team_id limit @limit`,
			pgx.StrictNamedArgs{"after": after, "limit": freezeTeams})
		teams, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return frozen, fmt.Errorf("find teams to freeze: %w", err)
		}
		if len(teams) == 0 {
			return frozen, nil
		}
		after = teams[len(teams)-1]
		err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			balances, err := lockBalances(ctx, tx, teams)
			if err != nil {
				return err
			}
			entry := rules.FreezeCarried(balances, now)
			frozen += int64(len(entry.Charges))
			return write(ctx, tx, entry, now)
		})
		if err != nil {
			return frozen, fmt.Errorf("freeze what is carried: %w", err)
		}
	}
}
