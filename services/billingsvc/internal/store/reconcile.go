package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// newestPosted is how many confirmed charges are looked at to explain a drift.
const newestPosted = 200

// Nudge makes a team due, and known if it is not.
func (s *Store) Nudge(ctx context.Context, teamID string, now time.Time) (bool, error) {
	known := false
	err := s.db.QueryRow(ctx, `
		insert into billing.balances as b (team_id, reconcile_due_at) values (@team_id, @now)
		on conflict (team_id) do update set reconcile_due_at = least(b.reconcile_due_at, @now)
		returning xmax <> 0`,
		pgx.StrictNamedArgs{"team_id": teamID, "now": now}).Scan(&known)
	if err != nil {
		return false, fmt.Errorf("nudge team: %w", err)
	}
	return known, nil
}

// LeaseReconciliations hands out teams whose balance has to be read. A charge
// under way does not keep a team back: a busy one would never have its turn. Whoever
// takes what is due passes by balances that are locked; one that is named is waited
// for, in the order in which balances are locked everywhere.
func (s *Store) LeaseReconciliations(ctx context.Context, q billing.ReconcileQuery) ([]billing.ReconcileLease, error) {
	order, locked := "reconcile_due_at, team_id", "skip locked"
	if len(q.Teams) > 0 {
		order, locked = "team_id", ""
	}
	var leases []billing.ReconcileLease
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		leases = nil
		rows, _ := tx.Query(ctx, `
			update billing.balances b
			set reconcile_token = b.reconcile_token + 1, reconcile_until = @until
			from (
				select team_id from billing.balances
				where (reconcile_until is null or reconcile_until <= @now)
					and (team_id = any(@teams) or cardinality(@teams::text[]) = 0 and reconcile_due_at <= @now)
				order by `+order+`
				limit @max
				for update `+locked+`
			) due
			where b.team_id = due.team_id
			returning b.team_id, b.reconcile_token`,
			pgx.StrictNamedArgs{"now": q.Now, "until": q.Until, "teams": append([]string{}, q.Teams...), "max": q.Max})
		type leased struct {
			TeamID         string
			ReconcileToken int64
		}
		teams, err := collect[leased](rows, "lease reconciliations")
		if err != nil {
			return err
		}
		for _, t := range teams {
			doubt, err := openDoubts(ctx, tx, t.TeamID)
			if err != nil {
				return err
			}
			leases = append(leases, billing.ReconcileLease{TeamID: t.TeamID, Token: t.ReconcileToken, ExpiresAt: q.Until, Doubtful: doubt})
		}
		return nil
	})
	return leases, err
}

// openDoubts are a team's charges that may be applied although they are not
// settled.
func openDoubts(ctx context.Context, tx pgx.Tx, teamID string) ([]billing.Charge, error) {
	rows, _ := tx.Query(ctx, `
		select `+chargeColumns+`
		from billing.charges c
		where c.team_id = @team_id and c.settled_at is null and (c.unsure or c.lease_token > c.recorded_token)
		order by c.seq`,
		pgx.StrictNamedArgs{"team_id": teamID})
	list, err := collect[billing.Charge](rows, "find charges in doubt")
	doubt := make([]billing.Charge, 0, len(list))
	for _, c := range list {
		if c.Doubtful() {
			doubt = append(doubt, c)
		}
	}
	return doubt, err
}

// settled lists a team's settled charges by a condition, newest first.
func settled(ctx context.Context, tx pgx.Tx, condition string, args pgx.StrictNamedArgs) ([]billing.Charge, error) {
	args["limit"] = newestPosted
	rows, _ := tx.Query(ctx, `
		select `+chargeColumns+`
		from billing.charges c
		where c.team_id = @team_id and c.settled_at is not null and @base::text[] is not null and `+condition+`
		order by c.settled_at desc, c.seq desc
		limit @limit`, args)
	return collect[billing.Charge](rows, "find settled charges")
}

// place is what a balance keeps of its reconciliations.
type place struct {
	ReconcileToken    int64
	ReportedToken     int64
	BaseUsageNanoUSD  money.NanoUSD
	BasePostedNanoUSD money.NanoUSD
	BaseDoubt         []string
	SinkResetAt       *time.Time
}

// standing locks a team and gathers what the books say of it. The charges in
// doubt are locked too, since a verdict may settle them.
func standing(ctx context.Context, tx pgx.Tx, teamID string) (billing.Standing, place, error) {
	var st billing.Standing
	b, err := lockBalance(ctx, tx, teamID)
	if err != nil {
		return st, place{}, err
	}
	rows, _ := tx.Query(ctx, `
		select reconcile_token, reported_token, base_usage_nano_usd, base_posted_nano_usd, base_doubt, sink_reset_at
		from billing.balances where team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": teamID})
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[place])
	if err != nil {
		return st, p, fmt.Errorf("read place: %w", err)
	}
	st = billing.Standing{Balance: b, BaseUsage: p.BaseUsageNanoUSD, BasePosted: p.BasePostedNanoUSD, ResetAt: p.SinkResetAt}
	_, err = tx.Exec(ctx, `
		select from billing.charges c
		where c.team_id = @team_id and c.settled_at is null and (c.unsure or c.lease_token > c.recorded_token)
		order by c.charge_id
		for update`,
		pgx.StrictNamedArgs{"team_id": teamID})
	if err != nil {
		return st, p, fmt.Errorf("lock charges in doubt: %w", err)
	}
	if st.Doubt, err = openDoubts(ctx, tx, teamID); err != nil {
		return st, p, err
	}
	for _, part := range []struct {
		into      *[]billing.Charge
		condition string
	}{
		{&st.Late, `c.settled_in = @token`},
		{&st.Base, `c.settled_in < @token and c.charge_id = any(@base)`},
		{&st.Posted, `c.settled_in < @token`},
	} {
		args := pgx.StrictNamedArgs{"team_id": teamID, "token": p.ReconcileToken, "base": p.BaseDoubt}
		if *part.into, err = settled(ctx, tx, part.condition, args); err != nil {
			return st, p, err
		}
	}
	return st, p, nil
}

// Release ends a lease for a reconciliation without a report. The token moves on, so
// that a late report under it changes nothing.
func (s *Store) Release(ctx context.Context, r billing.Release) error {
	tag, err := s.db.Exec(ctx, `
		update billing.balances
		set reconcile_token = reconcile_token + 1, reconcile_until = null, reconcile_due_at = greatest(reconcile_due_at, @due_at)
		where team_id = @team_id and reconcile_token = @token and reported_token < @token`,
		pgx.StrictNamedArgs{"team_id": r.TeamID, "token": r.Token, "due_at": r.DueAt})
	if err != nil {
		return fmt.Errorf("release team: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fault.Errorf(fault.Conflict, "team %s is no longer leased to the caller", r.TeamID)
	}
	return nil
}

// Reported writes the verdict on a leased team.
func (s *Store) Reported(ctx context.Context, r billing.Report, now time.Time, decide func(billing.Standing) billing.Verdict) (billing.Reconciliation, billing.Balance, error) {
	var rec billing.Reconciliation
	var b billing.Balance
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		st, p, err := standing(ctx, tx, r.TeamID)
		if err != nil {
			return err
		}
		b = st.Balance
		switch {
		case p.ReportedToken == r.Token:
			rec, err = recorded(ctx, tx, r)
			return err
		case p.ReconcileToken != r.Token || p.ReportedToken > r.Token:
			return fault.Errorf(fault.Conflict, "team %s is no longer leased to the caller", r.TeamID)
		}
		v := decide(st)
		rec, b = v.Reconciliation, v.Balance
		if err := writeReconciliation(ctx, tx, rec); err != nil {
			return err
		}
		return writeVerdict(ctx, tx, v, r.Token, now)
	})
	if err != nil {
		return billing.Reconciliation{}, billing.Balance{}, fmt.Errorf("report balance: %w", err)
	}
	return rec, b, nil
}

// recorded finds the reconciliation that a repeated report made.
func recorded(ctx context.Context, tx pgx.Tx, r billing.Report) (billing.Reconciliation, error) {
	rows, _ := tx.Query(ctx, `
		select `+reconciliationColumns+`
		from billing.reconciliations
		where team_id = @team_id and lease_token = @token`,
		pgx.StrictNamedArgs{"team_id": r.TeamID, "token": r.Token})
	rec, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.Reconciliation])
	if err != nil {
		return rec, fmt.Errorf("find reconciliation: %w", err)
	}
	return rec, nil
}

func writeReconciliation(ctx context.Context, tx pgx.Tx, r billing.Reconciliation) error {
	_, err := tx.Exec(ctx, `
		insert into billing.reconciliations (`+reconciliationColumns+`)
		values (@id, @team_id, @token, @sink_balance, @sink_usage, @expected_balance, @expected_usage, @posted, @unconfirmed,
			@drift, @usage_drift, @class, @fixed, @alarm, @charge_ids, @detail, @shadow_before, @shadow_after, @observed_at, @now)`,
		pgx.StrictNamedArgs{
			"id": r.ReconciliationID, "team_id": r.TeamID, "token": r.LeaseToken,
			"sink_balance": int64(r.SinkBalanceNanoUSD), "sink_usage": int64(r.SinkUsageNanoUSD),
			"expected_balance": int64(r.ExpectedBalanceNanoUSD), "expected_usage": int64(r.ExpectedUsageNanoUSD),
			"posted": int64(r.PostedNanoUSD), "unconfirmed": int64(r.UnconfirmedNanoUSD), "drift": int64(r.DriftNanoUSD),
			"usage_drift": int64(r.UsageDriftNanoUSD), "class": r.Class, "fixed": r.Fixed, "alarm": r.Alarm,
			"charge_ids": append([]string{}, r.ChargeIDs...), "detail": r.Detail,
			"shadow_before": int64(r.ShadowBeforeNanoUSD), "shadow_after": int64(r.ShadowAfterNanoUSD),
			"observed_at": r.ObservedAt, "now": r.CreatedAt,
		})
	if err != nil {
		return fmt.Errorf("keep reconciliation: %w", err)
	}
	return nil
}

// writeVerdict writes what a reconciliation changes.
func writeVerdict(ctx context.Context, tx pgx.Tx, v billing.Verdict, token int64, now time.Time) error {
	if err := writeAttempts(ctx, tx, v.Confirmed); err != nil {
		return err
	}
	if err := writeBalances(ctx, tx, []billing.Balance{v.Balance}, now); err != nil {
		return err
	}
	if v.Grant != nil {
		if err := writeGrants(ctx, tx, []billing.Grant{*v.Grant}); err != nil {
			return err
		}
	}
	if v.Transition != nil {
		if err := writeTransitions(ctx, tx, []billing.Transition{*v.Transition}); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `
		update billing.balances
		set reported_token = @token, reconcile_until = null, reconcile_due_at = @due_at, reconciled_at = @now,
			sink_reset_at = coalesce(@reset_at, sink_reset_at),
			base_usage_nano_usd = case when @rebase then @usage else base_usage_nano_usd - @shift end,
			base_posted_nano_usd = case when @rebase then @posted else base_posted_nano_usd end,
			base_doubt = case when @rebase then @doubt::text[]
				else array(select d from unnest(base_doubt) d where d <> all(@held::text[])) end
		where team_id = @team_id`,
		pgx.StrictNamedArgs{
			"team_id": v.Balance.TeamID, "token": token, "due_at": v.DueAt, "now": now, "reset_at": v.ResetAt, "rebase": v.Rebase,
			"usage": int64(v.Reconciliation.SinkUsageNanoUSD), "posted": int64(v.BasePosted), "shift": int64(v.BaseShift),
			"doubt": append([]string{}, v.Doubt...), "held": append([]string{}, v.BaseHeld...),
		})
	if err != nil {
		return fmt.Errorf("close reconciliation: %w", err)
	}
	return nil
}

// AcceptDrift begins the books of a team with its newest reconciliation.
func (s *Store) AcceptDrift(ctx context.Context, teamID, reconciliationID string, op billing.Operation, decide func(billing.Standing, billing.Reconciliation) billing.Verdict) (billing.Balance, error) {
	var b billing.Balance
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		st, p, err := standing(ctx, tx, teamID)
		if err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `
			select `+reconciliationColumns+`
			from billing.reconciliations
			where team_id = @team_id
			order by lease_token desc
			limit 1`,
			pgx.StrictNamedArgs{"team_id": teamID})
		rec, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.Reconciliation])
		switch {
		case errors.Is(err, pgx.ErrNoRows) || err == nil && rec.ReconciliationID != reconciliationID:
			return fault.Errorf(fault.Conflict, "%s is not the newest reconciliation of team %s", reconciliationID, teamID)
		case err != nil:
			return fmt.Errorf("find reconciliation: %w", err)
		case rec.Fixed || rec.Class == billing.ClassNoBalance:
			return fault.Errorf(fault.Precondition, "reconciliation %s left no drift to accept", reconciliationID)
		}
		late := pgx.StrictNamedArgs{"team_id": teamID, "token": rec.LeaseToken, "base": p.BaseDoubt}
		if st.Late, err = settled(ctx, tx, `c.settled_in >= @token`, late); err != nil { // since that reading began
			return err
		}
		v := decide(st, rec)
		b = v.Balance
		if err := writeVerdict(ctx, tx, v, p.ReportedToken, op.CreatedAt); err != nil {
			return err
		}
		return writeOperation(ctx, tx, &op)
	})
	return b, err
}
