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
	team, contains, reason, credits string
	all, verified, newKey, dryRun   bool
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
		fs.StringVar(&f.team, "team", "", "dead, doubts, requeue, pause, resume: team `ID`")
		fs.StringVar(&f.contains, "contains", "", "requeue: `PART` of the reason")
		fs.StringVar(&f.reason, "reason", "", "why, kept with the operation")
		fs.StringVar(&f.credits, "credits", "", "resolve applied: what the sink took, if not all, in `CREDITS`")
		fs.BoolVar(&f.all, "all", false, "pause, resume: every team")
		fs.BoolVar(&f.verified, "verified-not-applied", false, "requeue: somebody has looked at the sink")
		fs.BoolVar(&f.newKey, "new-key", false, "resolve not-applied: send it under another key")
		fs.BoolVar(&f.dryRun, "dry-run", false, "requeue, resolve: only tell what would become of it")
	})
}

// resolution reads `resolve CHARGE applied|not-applied`.
func (f outboxFlags) resolution(args []string) (*outboxv1.ResolveChargeRequest, error) {
	if len(args) != 2 {
		return nil, usageError("llmproxy outbox resolve needs a charge and one of applied, not-applied")
	}
	r := &outboxv1.ResolveChargeRequest{ChargeId: args[0], NewKey: f.newKey, DryRun: f.dryRun, Reason: f.reason}
	switch args[1] {
	case "applied":
		r.Resolution = outboxv1.Resolution_RESOLUTION_APPLIED
	case "not-applied":
		r.Resolution = outboxv1.Resolution_RESOLUTION_NOT_APPLIED
	default:
		return nil, usageError("%q is none of applied, not-applied", args[1])
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
