package dev

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// TestPricesAreCorrectedFromTheCommandLine runs a price list that is wrong, and puts
// right what it did to the ledger and to the bill.
func TestPricesAreCorrectedFromTheCommandLine(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile("../services/proxysvc/internal/pricing/prices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const right = `rates:
      - {input: "1", output: "5", cache_write_5m: "1.25"`
	list := filepath.Join(t.TempDir(), "prices.yaml")
	write := func(rates string) {
		t.Helper()
		text := strings.Replace(string(good), right, rates, 1)
		if rates != right && text == string(good) {
			t.Fatal("the price list has no such rates")
		}
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSuite(t)
	s.env["LLM_PROXY_PRICES"] = list
	command := func(status int, args, want string) {
		t.Helper()
		out, got := s.llmproxy(masterKey, append([]string{"prices"}, strings.Fields(args)...)...)
		if text := strings.Join(strings.Fields(out), ""); got != status || !strings.Contains(text, want) {
			t.Errorf("llmproxy prices %s = %d, %s, want %d with %s in it", args, got, out, status, want)
		}
	}
	write(strings.Replace(right, `"5"`, `"5 dollars"`, 1))
	command(1, "check "+list, "5dollars")
	write(strings.Replace(right, `"5"`, `"50"`, 1)) // nobody can see that this is wrong
	command(0, "check "+list, "allpricesaregood")

	s.start("keysvc")
	proxysvc := s.start("proxysvc")
	plain, ok := answer(t, call(t, http.MethodPost, "http://"+proxysvc.http+"/key/generate", masterKey, `{"team_id":"acme"}`))["key"].(string)
	if !ok {
		t.Fatal("no key")
	}
	answer(t, call(t, http.MethodPost, "http://"+proxysvc.http+"/v1/messages", plain,
		`{"model":"claude-haiku-4-5","max_tokens":100,"messages":[{"role":"user","content":"[[sim:output_tokens=100]]"}]}`))

	proxysvc.kill()
	s.processes = s.processes[:1:1]
	write(right)
	spend := proxyv1.NewSpendServiceClient(s.start("proxysvc").dial(t))
	billing := billingv1.NewBillingServiceClient(s.start("billingsvc").dial(t))
	s.start("outboxsvc")
	command(0, "list claude-haiku-4-5", `"output_nano_usd":"5000000000"`)
	command(0, "explain --input 1000 --output 100 claude-haiku-4-5", `"cost_nano_usd":"1500000"`)
	command(0, "correct claude-haiku-4-5 --from 2026-01-01", `"difference_nano_usd":"-4500000"`)
	command(1, "correct claude-haiku-4-5 --from yesterday", "isneitheraday")
	cost := func() int64 {
		t.Helper()
		a, err := spend.AuditSpend(t.Context(), &proxyv1.AuditSpendRequest{})
		if err != nil || len(a.GetFaults()) > 0 {
			t.Fatalf("audit: %v, %v", a.GetFaults(), err)
		}
		return a.GetCostNanoUsd()
	}
	wrong := cost()
	command(0, "correct claude-haiku-4-5 --from 2026-01-01 --apply", `"corrected":"1"`)
	command(0, "correct claude-haiku-4-5 --from 2026-01-01 --apply", `"rows":`)
	if got := wrong - cost(); got != 4_500_000 {
		t.Errorf("corrected by %d nano-dollars, want 100 tokens of $45 a million", got)
	}
	if _, err := billing.SyncNow(t.Context(), &billingv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	b, err := billing.GetBalance(t.Context(), &billingv1.GetBalanceRequest{TeamId: "acme"})
	if err != nil || b.GetBilledNanoUsd() != 3*cost() {
		t.Errorf("billed %d, %v, want three times %d", b.GetBilledNanoUsd(), err, cost())
	}
}
