// Package billing gets charges, teams and top-ups from billingsvc and settles
// them there.
package billing

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

const (
	callTimeout = 20 * time.Second
	// maxText bounds what is kept of a proof or an error.
	maxText = 500
)

// Client implements relay.Billing.
type Client struct {
	api billingsvcv1.BillingServiceClient
}

var _ relay.Billing = (*Client)(nil)

// New makes a client on a connection that stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{billingsvcv1.NewBillingServiceClient(conn)}
}

// Lease asks for charges to post.
func (c *Client) Lease(ctx context.Context, worker string, limit int, hold time.Duration) ([]relay.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.LeaseCharges(ctx, &billingsvcv1.LeaseChargesRequest{
		Worker: worker, MaxCharges: int32(limit), LeaseSeconds: int32(hold / time.Second), MarksSent: true, // small
	})
	if err != nil {
		return nil, faultOf(err)
	}
	leases := make([]relay.Lease, 0, len(resp.GetLeases()))
	for _, l := range resp.GetLeases() {
		leases = append(leases, relay.Lease{Charge: chargeOf(l.GetCharge()), Token: l.GetLeaseToken()})
	}
	return leases, nil
}

func chargeOf(c *billingsvcv1.Charge) relay.Charge {
	return relay.Charge{
		ChargeID: c.GetChargeId(), TeamID: c.GetTeamId(), Seq: c.GetSeq(),
		AmountNanoUSD: money.NanoUSD(c.GetAmountNanoUsd()), EventCount: c.GetEventCount(),
		Unsure:   c.GetUnsure() || c.GetState() == billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS,
		Attempts: int(c.GetAttempts()), KeyRound: int(c.GetKeyRound()), LastError: c.GetLastError(),
		FrozenAt: timeOf(c.GetFrozenAt()), FirstSentAt: timeOf(c.GetFirstSentAt()),
		Via: relay.Via{Device: c.GetSentDevice(), Key: c.GetSentKey()},
	}
}

// timeOf reads an instant; zero for none.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// instant writes one; nothing for zero.
func instant(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// MarkSent says that a leased charge is about to be sent, and under what.
func (c *Client) MarkSent(ctx context.Context, chargeID string, token int64, via relay.Via) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.MarkSent(ctx, &billingsvcv1.MarkSentRequest{ChargeId: chargeID, LeaseToken: token, Device: via.Device, Key: via.Key})
	if err != nil {
		return faultOf(err)
	}
	return nil
}

var outcomes = map[relay.Outcome]billingsvcv1.AttemptOutcome{
	relay.Applied:       billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED,
	relay.PartlyApplied: billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_PARTLY_APPLIED,
	relay.NotApplied:    billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_NOT_APPLIED,
	relay.Unknown:       billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNKNOWN,
	relay.Refused:       billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_REFUSED,
	relay.NeverApplied:  billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_NEVER_APPLIED,
}

// Settle reports the outcome of a lease. It waits for billing to come back
// within its deadline: the outcome is known nowhere else.
func (c *Client) Settle(ctx context.Context, s relay.Settlement) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.SettleCharge(ctx, &billingsvcv1.SettleChargeRequest{
		ChargeId: s.ChargeID, LeaseToken: s.Token, Outcome: outcomes[s.Outcome],
		Proof: short(s.Proof), Error: short(s.Error), RetryAfterMs: s.RetryAfter.Milliseconds(),
		AppliedNanoUsd: int64(s.AppliedNanoUSD), SinkBalanceCredits: s.SinkBalanceCredits,
		NotSent: s.NotSent, KeyUsedUp: s.KeyUsedUp,
	}, grpc.WaitForReady(true))
	if err != nil {
		return faultOf(err)
	}
	return nil
}

func short(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

// InDoubt lists the charges that wait and may have been applied.
func (c *Client) InDoubt(ctx context.Context) ([]relay.Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var doubt []relay.Charge
	req := &billingsvcv1.ListChargesRequest{State: billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS, PageSize: 1000}
	for {
		resp, err := c.api.ListCharges(ctx, req)
		if err != nil {
			return nil, faultOf(err)
		}
		for _, ch := range resp.GetCharges() {
			doubt = append(doubt, chargeOf(ch))
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return doubt, nil
		}
	}
}

// Dead lists dead charges, newest first.
func (c *Client) Dead(ctx context.Context, q relay.DeadQuery) ([]relay.DeadCharge, string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.ListCharges(ctx, &billingsvcv1.ListChargesRequest{
		TeamId: q.TeamID, State: billingsvcv1.ChargeState_CHARGE_STATE_DEAD, PageSize: q.PageSize, PageToken: q.PageToken,
	})
	if err != nil {
		return nil, "", faultOf(err)
	}
	dead := make([]relay.DeadCharge, 0, len(resp.GetCharges()))
	for _, ch := range resp.GetCharges() {
		dead = append(dead, relay.DeadCharge{
			ChargeID: ch.GetChargeId(), TeamID: ch.GetTeamId(), AmountNanoUSD: money.NanoUSD(ch.GetAmountNanoUsd()),
			Reason: ch.GetLastError(), Attempts: ch.GetAttempts(), FrozenAt: ch.GetFrozenAt().AsTime(),
		})
	}
	return dead, resp.GetNextPageToken(), nil
}

// faultOf keeps what a caller of ours can act on. Any other status is about us
// and billingsvc: it must not look like the caller's own fault.
func faultOf(err error) error {
	text := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.InvalidArgument:
		return fault.Wrap(fault.Invalid, err, text)
	case codes.NotFound:
		return fault.Wrap(fault.NotFound, err, text)
	case codes.Aborted:
		return fault.Wrap(fault.Conflict, err, text)
	case codes.FailedPrecondition:
		return fault.Wrap(fault.Precondition, err, text)
	case codes.Canceled:
		return err
	default:
		return fault.Wrap(fault.Unavailable, err, "billing cannot be reached: billingsvc answered "+status.Code(err).String())
	}
}
