package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// verdict is what an audit found.
type verdict struct {
	teams                        int
	rows                         int64
	spend, billed, charged, post money.NanoUSD
	carried, quarantined         money.NanoUSD
	faults                       []string
	pending                      []string // on its way: no fault, but not there yet
}

func audit(ctx context.Context, args []string) error {
	s, _, err := command("audit", args, nil)
	if err != nil {
		return err
	}
	defer s.close()
	v, err := settledVerdict(ctx, s)
	if err != nil {
		return err
	}
	v.print()
	if len(v.faults)+len(v.pending) > 0 {
		return fmt.Errorf("the sums do not agree: %d faults, %d still on their way", len(v.faults), len(v.pending))
	}
	return nil
}

// settledVerdict audits until nothing is on its way any more: it has the
// workers do their pass, and asks again while traffic moves the sums.
func settledVerdict(ctx context.Context, s *suite) (verdict, error) {
	const attempts = 20
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := s.billing.SyncNow(ctx, &billingv1.SyncNowRequest{}); err != nil {
			return verdict{}, fmt.Errorf("sync billing: %w", err)
		}
		if _, err := s.outbox.DeliverNow(ctx, &outboxv1.DeliverNowRequest{}); err != nil {
			return verdict{}, fmt.Errorf("deliver charges: %w", err)
		}
		v, err := takeVerdict(ctx, s)
		if err != nil || len(v.faults)+len(v.pending) == 0 || n == attempts {
			return v, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return v, ctx.Err()
		}
	}
}

// takeVerdict compares the sums of the ledger, of billing and of the sink, team
// by team.
func takeVerdict(ctx context.Context, s *suite) (verdict, error) {
	ledger, err := s.spend.AuditSpend(ctx, &proxyv1.AuditSpendRequest{})
	if err != nil {
		return verdict{}, fmt.Errorf("audit the ledger: %w", err)
	}
	billing, err := s.billing.AuditBilling(ctx, &billingv1.AuditBillingRequest{})
	if err != nil {
		return verdict{}, fmt.Errorf("audit billing: %w", err)
	}
	v := verdict{
		teams: len(billing.GetTeams()), rows: ledger.GetRows(), spend: money.NanoUSD(ledger.GetCostNanoUsd()),
		quarantined: money.NanoUSD(billing.GetQuarantinedNanoUsd()),
	}
	v.faults = append(append(v.faults, ledger.GetFaults()...), billing.GetFaults()...)
	spent := map[string]int64{}
	for _, t := range ledger.GetTeams() {
		spent[t.GetTeamId()] = t.GetCostNanoUsd()
	}
	for _, t := range billing.GetTeams() {
		v.billed += money.NanoUSD(t.GetBilledNanoUsd())
		v.charged += money.NanoUSD(t.GetChargedNanoUsd())
		v.post += money.NanoUSD(t.GetPostedNanoUsd())
		v.carried += money.NanoUSD(t.GetCarriedNanoUsd())
		if diff := spent[t.GetTeamId()] - t.GetCostNanoUsd(); diff != 0 {
			v.pending = append(v.pending, fmt.Sprintf("team %s: $%s of spend have no billing event yet", t.GetTeamId(), money.NanoUSD(diff)))
		}
		if diff := t.GetChargedNanoUsd() - t.GetPostedNanoUsd(); diff != 0 {
			v.pending = append(v.pending, fmt.Sprintf("team %s: charges of $%s are not posted yet", t.GetTeamId(), money.NanoUSD(diff)))
		}
		if err := v.compareSink(ctx, s, t); err != nil {
			return v, err
		}
		delete(spent, t.GetTeamId())
	}
	for team, n := range spent {
		if n != 0 && team != "" {
			v.pending = append(v.pending, fmt.Sprintf("team %s: $%s of spend have no billing event yet", team, money.NanoUSD(n)))
		}
	}
	return v, nil
}

// compareSink holds what was posted against what the sink says was used.
func (v *verdict) compareSink(ctx context.Context, s *suite, t *billingv1.TeamBilling) error {
	if t.GetPostedNanoUsd() == 0 {
		return nil
	}
	sink, err := s.outbox.GetSinkBalance(ctx, &outboxv1.GetSinkBalanceRequest{TeamId: t.GetTeamId()})
	if status.Code(err) == codes.NotFound {
		v.faults = append(v.faults, fmt.Sprintf("team %s: $%s were posted, and the sink does not know the team", t.GetTeamId(), money.NanoUSD(t.GetPostedNanoUsd())))
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the balance of %s at the sink: %w", t.GetTeamId(), err)
	}
	used, err := money.ParseDecimal(sink.GetUsedCredits(), 7) // 1e-7 credits are one nano-dollar
	if err != nil {
		return fmt.Errorf("used credits of %s at the sink: %w", t.GetTeamId(), err)
	}
	if used != t.GetPostedNanoUsd() {
		v.faults = append(v.faults, fmt.Sprintf("team %s: %s credits were posted, and the sink says %s were used",
			t.GetTeamId(), money.NanoUSD(t.GetPostedNanoUsd()).Credits(), sink.GetUsedCredits()))
	}
	return nil
}

func (v *verdict) print() {
	fmt.Printf("ledger    %d rows, $%s\n", v.rows, v.spend)
	fmt.Printf("events    $%s billed, $%s in quarantine (%d teams)\n", v.billed, v.quarantined, v.teams)
	fmt.Printf("charges   $%s charged, $%s carried\n", v.charged, v.carried)
	fmt.Printf("sink      $%s posted\n", v.post)
	for _, f := range v.faults {
		fmt.Printf("FAULT     %s\n", f)
	}
	for _, p := range v.pending {
		fmt.Printf("PENDING   %s\n", p)
	}
	if len(v.faults)+len(v.pending) == 0 {
		fmt.Println("verdict   the sums agree to the nano-dollar")
	}
}
