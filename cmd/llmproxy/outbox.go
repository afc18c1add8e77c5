package main

import (
	"cmp"
	"context"
	"flag"

	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// outboxFlags are the flags of `llmproxy outbox`.
type outboxFlags struct {
	team, contains, reason, credits, invoice string
	all, verified, newKey, dryRun            bool
}

func outboxCommand(ctx context.Context, args []string) error {
	var f outboxFlags
	return verbs(ctx, "outbox", args, map[string]verb{
		"stats": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.outbox.GetStats(ctx, &outboxv1.GetStatsRequest{})
		},
		"dead": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.outbox.ListDeadCharges(ctx, &outboxv1.ListDeadChargesRequest{TeamId: cmp.Or(f.team, first(args))})
		},
		"doubts": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.billing.ListCharges(ctx, &billingv1.ListChargesRequest{
				TeamId: cmp.Or(f.team, first(args)), State: billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS,
			})
		},
		"requeue": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			r := &outboxv1.RequeueChargesRequest{ChargeIds: args, DryRun: f.dryRun, Reason: f.reason, VerifiedNotApplied: f.verified}
			if f.team != "" || f.contains != "" {
				r.Filter = &outboxv1.DeadFilter{TeamId: f.team, ReasonContains: f.contains}
			}
			return s.outbox.RequeueCharges(ctx, r)
		},
		"resolve": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			r, err := f.resolution(args)
			if err != nil {
				return nil, err
			}
			return s.outbox.ResolveCharge(ctx, r)
		},
		"topups": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.billing.ListTopUps(ctx, &billingv1.ListTopUpsRequest{TeamId: cmp.Or(f.team, first(args))})
		},
		"resolve-topup": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			applied, err := resolved("resolve-topup TOPUP", args)
			if err != nil {
				return nil, err
			}
			r := &billingv1.ResolveTopUpRequest{
				TopUpId: args[0], Resolution: billingv1.Resolution_RESOLUTION_NOT_APPLIED, InvoiceId: f.invoice, DryRun: f.dryRun, Reason: f.reason,
			}
			if applied {
				r.Resolution = billingv1.Resolution_RESOLUTION_APPLIED
			}
			return s.billing.ResolveTopUp(ctx, r)
		},
		"pause": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.outbox.PauseTeam(ctx, &outboxv1.PauseTeamRequest{TeamId: f.team, All: f.all, Reason: f.reason})
		},
		"resume": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.outbox.ResumeTeam(ctx, &outboxv1.ResumeTeamRequest{TeamId: f.team, All: f.all, Reason: f.reason})
		},
		"reconcile": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.outbox.ReconcileNow(ctx, &outboxv1.ReconcileNowRequest{TeamIds: args})
		},
	}, func(fs *flag.FlagSet) {
		fs.StringVar(&f.team, "team", "", "dead, doubts, topups, requeue, pause, resume: team `ID`")
		fs.StringVar(&f.contains, "contains", "", "requeue: `PART` of the reason")
		fs.StringVar(&f.reason, "reason", "", "why, kept with the operation")
		fs.StringVar(&f.credits, "credits", "", "resolve applied: what the sink took, if not all, in `CREDITS`")
		fs.StringVar(&f.invoice, "invoice", "", "resolve-topup applied: `ID` of what it was paid with")
		fs.BoolVar(&f.all, "all", false, "pause, resume: every team")
		fs.BoolVar(&f.verified, "verified-not-applied", false, "requeue: somebody has looked at the sink")
		fs.BoolVar(&f.newKey, "new-key", false, "resolve not-applied: send it under another key")
		fs.BoolVar(&f.dryRun, "dry-run", false, "requeue, resolve, resolve-topup: only tell what would become of it")
	})
}

// resolution reads `resolve CHARGE applied|not-applied`.
func (f outboxFlags) resolution(args []string) (*outboxv1.ResolveChargeRequest, error) {
	applied, err := resolved("resolve CHARGE", args)
	if err != nil {
		return nil, err
	}
	r := &outboxv1.ResolveChargeRequest{
		ChargeId: args[0], Resolution: outboxv1.Resolution_RESOLUTION_NOT_APPLIED, NewKey: f.newKey, DryRun: f.dryRun, Reason: f.reason,
	}
	if applied {
		r.Resolution = outboxv1.Resolution_RESOLUTION_APPLIED
	}
	if f.credits != "" {
		const decimals = 7 // of credits, to a nano-dollar
		n, err := money.ParseDecimal(f.credits, decimals)
		if err != nil {
			return nil, usageError("--credits: %v", err)
		}
		r.AppliedNanoUsd = n
	}
	return r, nil
}

// resolved reads what was found out of something in doubt, which comes before it.
func resolved(verb string, args []string) (applied bool, err error) {
	if len(args) == 2 && (args[1] == "applied" || args[1] == "not-applied") {
		return args[1] == "applied", nil
	}
	return false, usageError("use llmproxy outbox %s applied, or not-applied", verb)
}
