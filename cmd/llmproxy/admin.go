package main

import (
	"context"
	"flag"
	"strings"

	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// verb is one action of an administrator's command.
type verb func(ctx context.Context, s *suite, args []string) (proto.Message, error)

// verbs runs `llmproxy NAME VERB [flags] [arguments]` and shows the answer.
func verbs(ctx context.Context, name string, args []string, known map[string]verb, more func(*flag.FlagSet)) error {
	if len(args) == 0 || known[args[0]] == nil {
		names := make([]string, 0, len(known))
		for v := range known {
			names = append(names, v)
		}
		return usageError("llmproxy %s needs one of: %s", name, strings.Join(names, ", "))
	}
	s, rest, err := command(name+" "+args[0], args[1:], more)
	if err != nil {
		return err
	}
	defer s.close()
	m, err := known[args[0]](ctx, s, rest)
	if err != nil {
		return err
	}
	return show(m)
}

func keyCommand(ctx context.Context, args []string) error {
	var user, team, duration, budget string
	return verbs(ctx, "key", args, map[string]verb{
		"issue": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			r := &keysv1.IssueSessionKeyRequest{UserId: user, TeamId: team, Duration: duration, Limits: &keysv1.Limits{}}
			if budget != "" {
				n, err := money.ParseUSD(budget)
				if err != nil {
					return nil, usageError("--budget: %v", err)
				}
				r.Limits.MaxBudgetNanoUsd = proto.Int64(int64(n))
			}
			return s.keys.IssueSessionKey(ctx, r)
		},
		"show": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.keys.GetKey(ctx, &keysv1.GetKeyRequest{KeyId: first(args)})
		},
		"list": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.keys.ListKeys(ctx, &keysv1.ListKeysRequest{TeamId: team, UserId: user})
		},
		"revoke": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.keys.RevokeKeys(ctx, &keysv1.RevokeKeysRequest{KeyIds: args, UserId: user, TeamId: team})
		},
	}, func(fs *flag.FlagSet) {
		fs.StringVar(&user, "user", "", "session `ID`")
		fs.StringVar(&team, "team", "", "team `ID`")
		fs.StringVar(&duration, "duration", "", "life of an issued key, e.g. 24h")
		fs.StringVar(&budget, "budget", "", "most that an issued key may spend, in `USD`")
	})
}

func teamCommand(ctx context.Context, args []string) error {
	var reason string
	return verbs(ctx, "team", args, map[string]verb{
		"show": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.teams.GetTeam(ctx, &keysv1.GetTeamRequest{TeamId: first(args)})
		},
		"list": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.teams.ListTeams(ctx, &keysv1.ListTeamsRequest{})
		},
		"status": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			if len(args) != 2 {
				return nil, usageError("llmproxy team status needs a team and one of active, blocked, exhausted, suspended")
			}
			status, ok := keysv1.TeamStatus_value["TEAM_STATUS_"+strings.ToUpper(args[1])]
			if !ok || status == 0 {
				return nil, usageError("%q is none of active, blocked, exhausted, suspended", args[1])
			}
			return s.teams.SetTeamStatus(ctx, &keysv1.SetTeamStatusRequest{TeamId: args[0], Status: keysv1.TeamStatus(status), Reason: reason})
		},
	}, func(fs *flag.FlagSet) { fs.StringVar(&reason, "reason", "", "shown to users that are refused") })
}

func spendCommand(ctx context.Context, args []string) error {
	var team, user, key string
	return verbs(ctx, "spend", args, map[string]verb{
		"list": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.spend.ListSpend(ctx, &proxyv1.ListSpendRequest{TeamId: team, UserId: user, KeyId: key})
		},
		"open": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.proxy.ListOpenRequests(ctx, &proxyv1.ListOpenRequestsRequest{TeamId: team, UserId: user, KeyId: key})
		},
		"events": func(ctx context.Context, s *suite, _ []string) (proto.Message, error) {
			return s.billing.ListBillingEvents(ctx, &billingv1.ListBillingEventsRequest{TeamId: team})
		},
	}, func(fs *flag.FlagSet) {
		fs.StringVar(&team, "team", "", "team `ID`")
		fs.StringVar(&user, "user", "", "session `ID`")
		fs.StringVar(&key, "key", "", "key `ID`")
	})
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
