package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

// pricesCommand lists prices, explains the cost of a usage, checks a price list
// before it is used, and prices rows again.
func pricesCommand(ctx context.Context, args []string) error {
	if first(args) == "check" {
		return checkPrices(args[1:])
	}
	var u proxyv1.Usage
	var from, to string
	var apply bool
	return verbs(ctx, "prices", args, map[string]verb{
		"list": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			return s.spend.ListPrices(ctx, &proxyv1.ListPricesRequest{Model: first(args)})
		},
		"explain": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			at, err := instant(from)
			if err != nil {
				return nil, err
			}
			return s.spend.CalculateCost(ctx, &proxyv1.CalculateCostRequest{Model: first(args), Usage: &u, At: at})
		},
		"correct": func(ctx context.Context, s *suite, args []string) (proto.Message, error) {
			begin, err := instant(from)
			if err != nil {
				return nil, err
			}
			end, err := instant(to)
			if err != nil {
				return nil, err
			}
			return s.spend.CorrectPrices(ctx, &proxyv1.CorrectPricesRequest{Model: first(args), From: begin, To: end, DryRun: !apply})
		},
	}, func(fs *flag.FlagSet) {
		fs.Int64Var(&u.InputTokens, "input", 0, "explain: uncached input `TOKENS`")
		fs.Int64Var(&u.OutputTokens, "output", 0, "explain: output `TOKENS`")
		fs.Int64Var(&u.CacheReadInputTokens, "cache-read", 0, "explain: cached `TOKENS`")
		fs.Int64Var(&u.CacheWrite_5MInputTokens, "cache-write-5m", 0, "explain: `TOKENS` written for five minutes")
		fs.Int64Var(&u.CacheWrite_1HInputTokens, "cache-write-1h", 0, "explain: `TOKENS` written for an hour")
		fs.Int64Var(&u.WebSearchRequests, "web-searches", 0, "explain: `NUMBER` of web searches")
		fs.StringVar(&u.Speed, "speed", "", "explain: served `SPEED`, such as fast")
		fs.StringVar(&u.InferenceGeo, "geo", "", "explain: served `GEOGRAPHY`, such as us")
		fs.StringVar(&u.ServiceTier, "tier", "", "explain: served `TIER`, such as batch")
		fs.StringVar(&from, "from", "", "correct: rows that ended from this `DAY` on; explain: the day of the request")
		fs.StringVar(&to, "to", "", "correct: rows that ended before this `DAY`")
		fs.BoolVar(&apply, "apply", false, "correct: add the rows; otherwise only say what would change")
	})
}

// instant reads a day or an instant; nil: none was given.
func instant(text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, fmt.Errorf("%q is neither a day (2026-11-24) nor an instant (2026-11-24T12:00:00Z)", text)
}

func checkPrices(args []string) error {
	if len(args) != 1 {
		return usageError("usage: llmproxy prices check FILE")
	}
	text, err := os.ReadFile(args[0]) //nolint:gosec // the file that the user names
	if err != nil {
		return err
	}
	n, err := proxysvc.CheckPrices(text)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d models, all prices are good\n", args[0], n)
	return nil
}
