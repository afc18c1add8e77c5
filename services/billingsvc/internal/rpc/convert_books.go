package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

var gateStates = map[billing.GateState]billingsvcv1.GateState{
	billing.Unconfigured: billingsvcv1.GateState_GATE_STATE_UNCONFIGURED,
	billing.Trial:        billingsvcv1.GateState_GATE_STATE_TRIAL,
	billing.Active:       billingsvcv1.GateState_GATE_STATE_ACTIVE,
	billing.Grace:        billingsvcv1.GateState_GATE_STATE_GRACE,
	billing.Exhausted:    billingsvcv1.GateState_GATE_STATE_EXHAUSTED,
	billing.Suspended:    billingsvcv1.GateState_GATE_STATE_SUSPENDED,
}

var classes = map[billing.Class]billingsvcv1.DriftClass{
	billing.ClassNone:          billingsvcv1.DriftClass_DRIFT_CLASS_NONE,
	billing.ClassRounding:      billingsvcv1.DriftClass_DRIFT_CLASS_ROUNDING,
	billing.ClassBaseline:      billingsvcv1.DriftClass_DRIFT_CLASS_BASELINE,
	billing.ClassInFlight:      billingsvcv1.DriftClass_DRIFT_CLASS_IN_FLIGHT,
	billing.ClassDoubtApplied:  billingsvcv1.DriftClass_DRIFT_CLASS_DOUBT_APPLIED,
	billing.ClassGrant:         billingsvcv1.DriftClass_DRIFT_CLASS_GRANT,
	billing.ClassGrantRemoved:  billingsvcv1.DriftClass_DRIFT_CLASS_GRANT_REMOVED,
	billing.ClassReset:         billingsvcv1.DriftClass_DRIFT_CLASS_RESET,
	billing.ClassMissingCharge: billingsvcv1.DriftClass_DRIFT_CLASS_MISSING_CHARGE,
	billing.ClassDoubleCharge:  billingsvcv1.DriftClass_DRIFT_CLASS_DOUBLE_CHARGE,
	billing.ClassUnexplained:   billingsvcv1.DriftClass_DRIFT_CLASS_UNEXPLAINED,
	billing.ClassNoBalance:     billingsvcv1.DriftClass_DRIFT_CLASS_NO_BALANCE,
	billing.ClassCustomerReset: billingsvcv1.DriftClass_DRIFT_CLASS_CUSTOMER_RESET,
}

// gateStateFrom returns the state of a filter; empty for all.
func gateStateFrom(s billingsvcv1.GateState) (billing.GateState, error) {
	if s == billingsvcv1.GateState_GATE_STATE_UNSPECIFIED {
		return "", nil
	}
	for state, wire := range gateStates {
		if wire == s {
			return state, nil
		}
	}
	return "", fault.Errorf(fault.Invalid, "state %d is unknown", s)
}

func gateOf(teamID string, g billing.Gate) *billingsvcv1.Gate {
	return &billingsvcv1.Gate{
		TeamId: teamID, State: gateStates[g.State], Open: g.Open(), Reason: g.Reason, ChangedAt: instant(g.ChangedAt),
		GraceUntil: instant(g.GraceUntil), Generation: g.Generation, AnnouncedGeneration: g.Announced, AnnounceError: g.AnnounceError,
	}
}

func balanceOf(b billing.Balance, paused bool) *billingsvcv1.GetBalanceResponse {
	return &billingsvcv1.GetBalanceResponse{
		TeamId: b.TeamID, BilledNanoUsd: int64(b.BilledNanoUSD), ChargedNanoUsd: int64(b.ChargedNanoUSD),
		PostedNanoUsd: int64(b.PostedNanoUSD), CarriedNanoUsd: int64(b.CarriedNanoUSD), SinkBalanceCredits: b.SinkBalanceCredits,
		ShadowNanoUsd: int64(b.Shadow()), ShadowCredits: b.Shadow().Credits(), GrantedNanoUsd: int64(b.GrantedNanoUSD),
		UnconfirmedNanoUsd: int64(b.Unconfirmed()), Gate: gateOf(b.TeamID, b.Gate), Paused: paused,
		OpenDriftNanoUsd: int64(b.OpenDriftNanoUSD),
	}
}

func reconciliationOf(r billing.Reconciliation) *billingsvcv1.Reconciliation {
	return &billingsvcv1.Reconciliation{
		ReconciliationId: r.ReconciliationID, TeamId: r.TeamID,
		SinkBalanceNanoUsd: int64(r.SinkBalanceNanoUSD), SinkUsageNanoUsd: int64(r.SinkUsageNanoUSD),
		ExpectedBalanceNanoUsd: int64(r.ExpectedBalanceNanoUSD), ExpectedUsageNanoUsd: int64(r.ExpectedUsageNanoUSD),
		UnconfirmedNanoUsd: int64(r.UnconfirmedNanoUSD), DriftNanoUsd: int64(r.DriftNanoUSD), UsageDriftNanoUsd: int64(r.UsageDriftNanoUSD),
		Class: classes[r.Class], Fixed: r.Fixed, Alarm: r.Alarm, ChargeIds: r.ChargeIDs, Detail: r.Detail,
		ShadowBeforeNanoUsd: int64(r.ShadowBeforeNanoUSD), ShadowAfterNanoUsd: int64(r.ShadowAfterNanoUSD),
		ObservedAt: timestamppb.New(r.ObservedAt), CreatedAt: timestamppb.New(r.CreatedAt),
	}
}

var topUpStates = map[billing.TopUpState]billingsvcv1.TopUpState{
	billing.TopUpPending:   billingsvcv1.TopUpState_TOP_UP_STATE_PENDING,
	billing.TopUpSucceeded: billingsvcv1.TopUpState_TOP_UP_STATE_SUCCEEDED,
	billing.TopUpDeclined:  billingsvcv1.TopUpState_TOP_UP_STATE_DECLINED,
	billing.TopUpFailed:    billingsvcv1.TopUpState_TOP_UP_STATE_FAILED,
	billing.TopUpUnknown:   billingsvcv1.TopUpState_TOP_UP_STATE_UNKNOWN,
}

var topUpOutcomes = map[billingsvcv1.TopUpOutcome]billing.TopUpOutcome{
	billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_SUCCEEDED: billing.TopUpPaid,
	billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_DECLINED:  billing.TopUpNo,
	billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_NOT_DONE:  billing.TopUpNotDone,
	billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_UNKNOWN:   billing.TopUpUnsure,
	billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_REFUSED:   billing.TopUpRefused,
}

func topUpOf(t billing.TopUp) *billingsvcv1.TopUp {
	return &billingsvcv1.TopUp{
		TopUpId: t.TopUpID, TeamId: t.TeamID, AmountNanoUsd: int64(t.AmountNanoUSD), State: topUpStates[t.State],
		Attempts: t.Attempts, LastError: t.LastError, CreatedAt: timestamppb.New(t.CreatedAt), FirstSentAt: instant(t.FirstSentAt),
		DueAt: timestamppb.New(t.DueAt), SettledAt: instant(t.SettledAt), InvoiceId: t.InvoiceID,
	}
}

func ruleOf(r billing.TopUpRule) *billingsvcv1.TopUpRule {
	return &billingsvcv1.TopUpRule{
		TeamId: r.TeamID, Enabled: r.Enabled, BelowNanoUsd: int64(r.BelowNanoUSD), AmountNanoUsd: int64(r.AmountNanoUSD),
		MaxPerMonth: r.MaxPerMonth, Declined: r.Declined(time.Now()), DeclineReason: r.DeclineReason,
	}
}

func markupOf(m billing.TeamMarkup) *billingsvcv1.TeamMarkup {
	return &billingsvcv1.TeamMarkup{
		MarkupId: m.MarkupID, TeamId: m.TeamID, Markup: m.Markup, EffectiveFrom: timestamppb.New(m.EffectiveFrom),
		Actor: m.Actor, Reason: m.Reason, CreatedAt: timestamppb.New(m.CreatedAt),
	}
}

func quarantinedOf(q billing.QuarantineEntry) *billingsvcv1.QuarantinedRow {
	row := &billingsvcv1.QuarantinedRow{
		LogId: q.Row.LogID, Seq: q.Row.Seq, RequestId: q.Row.RequestID, TeamId: q.Row.TeamID, Model: q.Row.Model,
		CostNanoUsd: int64(q.Row.CostNanoUSD), Reason: q.Reason, CreatedAt: timestamppb.New(q.CreatedAt), ReratedAt: instant(q.ReratedAt),
	}
	if !q.Row.EndedAt.IsZero() {
		row.EndedAt = timestamppb.New(q.Row.EndedAt)
	}
	return row
}

// when returns an instant, or zero when it is absent or out of range.
func when(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

// pointTo returns an instant, or nil when it is absent.
func pointTo(t *timestamppb.Timestamp) *time.Time {
	if at := when(t); !at.IsZero() {
		return &at
	}
	return nil
}

// creditDecimals is how many decimals of a credit an amount can hold.
const creditDecimals = 7

// credits reads a decimal of credits; decimals beyond the 7th are rounded half
// away from zero, because the sink's arithmetic makes up more.
func credits(name, s string) (money.NanoUSD, error) {
	n, err := money.ParseDecimal(roundTo(s, creditDecimals+1), creditDecimals+1)
	if err != nil {
		return 0, fault.Errorf(fault.Invalid, "%s is not a decimal number of credits", name)
	}
	rest := n % 10
	n /= 10
	switch {
	case rest >= 5:
		n++
	case rest <= -5:
		n--
	}
	return money.NanoUSD(n), nil
}
