package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

func eventOf(e billing.Event) *billingsvcv1.BillingEvent {
	return &billingsvcv1.BillingEvent{
		IdempotencyKey: e.IdempotencyKey, OrganizationId: e.OrganizationID, EventType: e.EventType,
		CostNanoUsd: int64(e.CostNanoUSD), PriceNanoUsd: int64(e.PriceNanoUSD), Credits: e.PriceNanoUSD.Credits(),
		Markup: e.Markup, SessionIds: e.SessionIDs, ChargeId: e.ChargeID,
		OccurredAt: timestamppb.New(e.OccurredAt), CreatedAt: timestamppb.New(e.CreatedAt),
		LogId: e.LogID, Seq: e.Seq, Model: e.Model,
		Quantity: e.Quantity, Status: "billed", Corrects: e.Corrects, Reason: e.Reason,
	}
}

func chargeOf(c billing.Charge) *billingsvcv1.Charge {
	return &billingsvcv1.Charge{
		ChargeId: c.ChargeID, TeamId: c.TeamID, Seq: c.Seq,
		AmountNanoUsd: int64(c.AmountNanoUSD), Credits: c.AmountNanoUSD.Credits(),
		EventCount: c.EventCount, Checksum: c.Checksum, State: stateOf(c.State), Attempts: c.Attempts,
		Proof: c.Proof, LastError: c.LastError,
		FrozenAt: timestamppb.New(c.FrozenAt), FirstSentAt: instant(c.FirstSentAt), DueAt: timestamppb.New(c.DueAt),
		SettledAt: instant(c.SettledAt), ShortfallNanoUsd: int64(c.ShortfallNanoUSD),
		SentAttempts: c.SentAttempts, KeyRound: c.KeyRound, Unsure: c.Unsure,
		SentDevice: c.SentDevice, SentKey: c.SentKey,
	}
}

func chargesOf(charges []billing.Charge) []*billingsvcv1.Charge {
	out := make([]*billingsvcv1.Charge, 0, len(charges))
	for _, c := range charges {
		out = append(out, chargeOf(c))
	}
	return out
}

func leasesOf(leases []billing.Lease) []*billingsvcv1.Lease {
	out := make([]*billingsvcv1.Lease, 0, len(leases))
	for _, l := range leases {
		out = append(out, &billingsvcv1.Lease{
			Charge: chargeOf(l.Charge), LeaseToken: l.Token, ExpiresAt: timestamppb.New(l.ExpiresAt),
		})
	}
	return out
}

func instant(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

var states = map[billing.State]billingsvcv1.ChargeState{
	billing.Pending:   billingsvcv1.ChargeState_CHARGE_STATE_PENDING,
	billing.Posted:    billingsvcv1.ChargeState_CHARGE_STATE_POSTED,
	billing.Short:     billingsvcv1.ChargeState_CHARGE_STATE_SHORT,
	billing.Ambiguous: billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS,
	billing.Dead:      billingsvcv1.ChargeState_CHARGE_STATE_DEAD,
}

func stateOf(s billing.State) billingsvcv1.ChargeState { return states[s] }

// stateFrom returns the state of a filter; empty for all.
func stateFrom(s billingsvcv1.ChargeState) (billing.State, error) {
	if s == billingsvcv1.ChargeState_CHARGE_STATE_UNSPECIFIED {
		return "", nil
	}
	for state, wire := range states {
		if wire == s {
			return state, nil
		}
	}
	return "", fault.Errorf(fault.Invalid, "state %d is unknown", s)
}

func outcomeOf(o billingsvcv1.AttemptOutcome) (billing.Outcome, error) {
	switch o {
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED:
		return billing.Applied, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_PARTLY_APPLIED:
		return billing.PartlyApplied, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_NOT_APPLIED:
		return billing.NotApplied, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNKNOWN:
		return billing.Unknown, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_REFUSED:
		return billing.Refused, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_NEVER_APPLIED:
		return billing.NeverApplied, nil
	case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNSPECIFIED:
	}
	return "", fault.Errorf(fault.Invalid, "outcome is not set")
}

// milliseconds refuses what is negative or longer than a year, which no retry
// needs and which would overflow a duration.
func milliseconds(ms int64) (time.Duration, error) {
	const year = 365 * 24 * int64(time.Hour/time.Millisecond)
	if ms < 0 || ms > year {
		return 0, fault.Errorf(fault.Invalid, "retry_after_ms is not from 0 to a year")
	}
	return time.Duration(ms) * time.Millisecond, nil
}
