package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func TestBudgets(t *testing.T) {
	t.Parallel()
	budget := func(usd string) func(*proxy.Key, *proxy.Settings) {
		return func(k *proxy.Key, _ *proxy.Settings) {
			n, err := money.ParseUSD(usd)
			if err != nil {
				t.Fatal(err)
			}
			k.Limits.Budgets = []ledger.Budget{{Limit: n}}
		}
	}
	t.Run("a budget of zero is final", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, budget("0"))
		resp := s.post(body(true, ""))
		if text := read(t, resp); resp.StatusCode != 402 || !strings.Contains(text, "billing_error") || resp.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%d %s %v", resp.StatusCode, text, resp.Header)
		}
		count := s.send(t.Context(), s.proxy.URL, virtualKey, "/v1/messages/count_tokens", body(false, ""))
		if text := read(t, count); count.StatusCode != 200 || !strings.Contains(text, "input_tokens") {
			t.Errorf("count_tokens at a budget of zero: %d %s", count.StatusCode, text)
		}
		if n := len(s.sim.Ledger()); n != 0 {
			t.Errorf("%d answers were bought", n)
		}
	})
	t.Run("what another request holds comes free again", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, budget("0.005")) // one request's worst case, not two
		first := s.post(body(true, "[[sim:stall=after:1]]"))
		readUntil(t, first.Body, "content_block_delta")
		second := s.post(body(true, ""))
		if text := read(t, second); second.StatusCode != 429 || second.Header.Get("Retry-After") == "" || !strings.Contains(text, "held") {
			t.Errorf("%d %s", second.StatusCode, text)
		}
		s.running.End([]string{"key_1"}, nil, 0, "blocked")
		read(t, first)
		s.row()
		third := s.post(body(true, ""))
		if text := read(t, third); third.StatusCode != 200 {
			t.Errorf("after the first ended: %d %s", third.StatusCode, text)
		}
	})
}

func TestTheClientIsToldWhereItsBudgetStands(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) {
		k.Limits.Budgets = []ledger.Budget{{Limit: 5 * money.USD, Window: "24h"}, {Limit: 9 * money.USD}}
	})
	var spent money.NanoUSD
	for n := range 2 {
		resp := s.post(body(false, ""))
		read(t, resp)
		cost, err := money.ParseUSD(resp.Header.Get("X-Litellm-Response-Cost"))
		if err != nil {
			t.Fatal(err)
		}
		spent += cost
		if got, want := resp.Header.Get("X-Litellm-Key-Spend"), spent.String(); got != want {
			t.Errorf("request %d: spent %s, want %s", n, got, want)
		}
		if got, want := resp.Header.Get("X-Llmproxy-Budget-Remaining"), (5*money.USD - spent).String(); got != want {
			t.Errorf("request %d: %s remain, want %s", n, got, want)
		}
		resets, err := time.Parse(time.RFC3339, resp.Header.Get("X-Llmproxy-Budget-Reset"))
		if err != nil || !resets.After(time.Now()) || resets.Truncate(24*time.Hour) != resets {
			t.Errorf("request %d: resets at %v, %v", n, resets, err)
		}
	}
}

func TestAKeyWithoutLimitsIsToldWhatItSpent(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	first := s.post(body(false, ""))
	read(t, first)
	second := s.post(body(true, ""))
	read(t, second)
	if got, want := second.Header.Get("X-Litellm-Key-Spend"), first.Header.Get("X-Litellm-Response-Cost"); got != want || got == "" {
		t.Errorf("the stream says %q was spent, want %q", got, want)
	}
	if got := second.Header.Get("X-Llmproxy-Budget-Remaining"); got != "" {
		t.Errorf("%s remain of no budget", got)
	}
}
