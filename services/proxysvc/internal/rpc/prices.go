package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// ListPrices implements SpendService.
func (s *Spend) ListPrices(_ context.Context, r *proxyv1.ListPricesRequest) (*proxyv1.ListPricesResponse, error) {
	resp := &proxyv1.ListPricesResponse{Version: s.book.Version}
	for _, l := range s.book.List() {
		if !slices.ContainsFunc(l.Names, func(name string) bool { return strings.Contains(name, r.GetModel()) }) {
			continue
		}
		p := &proxyv1.Price{
			Models: l.Names, Provider: l.Provider, AbovePromptTokens: l.AbovePromptTokens,
			InputNanoUsd: l.Rates.Input, OutputNanoUsd: l.Rates.Output, CacheReadNanoUsd: l.Rates.CacheRead,
			CacheWrite_5MNanoUsd: l.Rates.CacheWrite5m, CacheWrite_1HNanoUsd: l.Rates.CacheWrite1h,
		}
		if !l.From.IsZero() {
			p.From = timestamppb.New(l.From)
		}
		resp.Prices = append(resp.Prices, p)
	}
	return resp, nil
}

// CalculateCost implements SpendService.
func (s *Spend) CalculateCost(_ context.Context, r *proxyv1.CalculateCostRequest) (*proxyv1.CalculateCostResponse, error) {
	m, err := s.book.Model(r.GetModel())
	if err != nil {
		return nil, err
	}
	at := time.Now()
	if r.GetAt() != nil {
		at = r.GetAt().AsTime()
	}
	u := usageFromWire(r.GetUsage())
	cost, parts, err := m.Breakdown(u, at)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the usage is negative or too large")
	}
	resp := &proxyv1.CalculateCostResponse{CostNanoUsd: int64(cost), BreakdownNanoUsd: map[string]int64{}, PriceVersion: s.book.Version}
	for pool, part := range parts {
		resp.BreakdownNanoUsd[pool] = int64(part)
	}
	return resp, nil
}

// CorrectPrices implements SpendService.
func (s *Spend) CorrectPrices(ctx context.Context, r *proxyv1.CorrectPricesRequest) (*proxyv1.CorrectPricesResponse, error) {
	if r.GetModel() == "" || r.GetFrom() == nil {
		return nil, fault.Errorf(fault.Invalid, "model and from are required")
	}
	m, err := s.book.Model(r.GetModel())
	if err != nil {
		return nil, err
	}
	f := ledger.Filter{Model: r.GetModel(), EndedAfter: r.GetFrom().AsTime(), EndedBefore: time.Now()}
	if r.GetTo() != nil {
		f.EndedBefore = r.GetTo().AsTime()
	}
	sum, err := s.corrector.Correct(ctx, f, func(row ledger.Row) (money.NanoUSD, error) { return m.Cost(row.Usage, row.StartedAt) }, r.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &proxyv1.CorrectPricesResponse{Rows: sum.Rows, Corrected: sum.Corrected, DifferenceNanoUsd: int64(sum.Difference)}, nil
}

func usageFromWire(u *proxyv1.Usage) pricing.Usage {
	return pricing.Usage{
		InputTokens: u.GetInputTokens(), OutputTokens: u.GetOutputTokens(), CacheReadTokens: u.GetCacheReadInputTokens(),
		CacheWrite5mTokens: u.GetCacheWrite_5MInputTokens(), CacheWrite1hTokens: u.GetCacheWrite_1HInputTokens(),
		WebSearchRequests: u.GetWebSearchRequests(), Speed: u.GetSpeed(), InferenceGeo: u.GetInferenceGeo(), ServiceTier: u.GetServiceTier(),
		ReasoningTokens: u.GetReasoningTokens(),
	}
}
