package dev

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"google.golang.org/protobuf/proto"

	"github.com/proliferate-ai/llm-proxy/dev/listprice"
	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// byHand prices what the simulator says it used, in nano-dollars.
func byHand(t *testing.T, e anthropic.Entry) int64 {
	t.Helper()
	u := e.Usage
	cost, ok := listprice.Cost(e.Model, listprice.Usage{
		Input: u.InputTokens, Output: u.OutputTokens, Read: u.CacheReadInputTokens,
		Write5m: u.CacheCreation.Ephemeral5mInputTokens, Write1h: u.CacheCreation.Ephemeral1hInputTokens,
	})
	if !ok {
		t.Fatalf("no price by hand for %s", e.Model)
	}
	return cost.Int64()
}

// TestTheWholeLoop runs the main job with Anthropic's own SDK over four
// processes: keys are issued, answers streamed, and at the end the usage that
// the simulator reports, priced by hand, is what the ledger spent, a third of
// what was billed, what was charged, and what Autumn applied.
func TestTheWholeLoop(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	proxysvc := s.start("proxysvc")
	billingsvc := s.start("billingsvc")
	outboxsvc := s.start("outboxsvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))

	teams := []string{"acme", "globex", "initech"}
	models := []string{"claude-haiku-4-5", "anthropic/claude-sonnet-4-5", "claude-opus-5-5"}
	var secrets []string
	for n, team := range teams {
		for session := range 2 {
			resp, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
				UserId: fmt.Sprintf("%s-session-%d", team, session), TeamId: team, Duration: "1h",
				Limits: &keysv1.Limits{MaxBudgetNanoUsd: proto.Int64(5_000_000_000)},
			})
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, resp.GetSecret())
			client := sdk.NewClient(option.WithAPIKey(resp.GetSecret()), option.WithBaseURL("http://"+proxysvc.http))
			converse(t, client, models[n], session)
		}
	}

	var used int64
	finished := 0
	for _, e := range s.anthropic.Ledger() {
		if !e.Finished {
			t.Errorf("the simulator did not finish %s", e.ID)
		}
		used += byHand(t, e)
		finished++
	}
	spend := proxyv1.NewSpendServiceClient(proxysvc.dial(t))
	ledger, err := spend.AuditSpend(t.Context(), &proxyv1.AuditSpendRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if ledger.GetCostNanoUsd() != used || len(ledger.GetFaults()) > 0 || ledger.GetHeldNanoUsd() != 0 {
		t.Errorf("the ledger spent %d, the simulator's usage costs %d; %d held, faults %v",
			ledger.GetCostNanoUsd(), used, ledger.GetHeldNanoUsd(), ledger.GetFaults())
	}
	if ledger.GetRows() < int64(finished) {
		t.Errorf("%d rows for %d answers", ledger.GetRows(), finished)
	}

	billing := billingv1.NewBillingServiceClient(billingsvc.dial(t))
	outbox := outboxv1.NewOutboxServiceClient(outboxsvc.dial(t))
	books := settle(t, billing, outbox, used)
	var cost, billed, charged, carried int64
	applied := s.autumn.Applied()
	for _, team := range books.GetTeams() {
		cost += team.GetCostNanoUsd()
		billed += team.GetBilledNanoUsd()
		charged += team.GetChargedNanoUsd()
		carried += team.GetCarriedNanoUsd()
		// Autumn counts in 1e-10 credits: a thousand to the nano-dollar.
		if got := int64(applied[team.GetTeamId()].Credits); got != team.GetChargedNanoUsd()*1000 {
			t.Errorf("Autumn applied %d e-10 credits of %s, %d nano-dollars were charged", got, team.GetTeamId(), team.GetChargedNanoUsd())
		}
	}
	if cost != used || billed != 3*used || charged+carried != billed || len(books.GetFaults()) > 0 {
		t.Errorf("used %d, cost of events %d, billed %d, charged %d, carried %d, faults %v", used, cost, billed, charged, carried, books.GetFaults())
	}
	if len(applied) != len(teams) {
		t.Errorf("Autumn knows %d teams, want %d", len(applied), len(teams))
	}
	t.Logf("%d answers of $%s, %d rows, billed %d = charged %d + carried %d nano-dollars", finished,
		new(big.Rat).SetFrac64(used, 1_000_000_000).FloatString(9), ledger.GetRows(), billed, charged, carried)

	for _, p := range s.processes {
		for _, secret := range secrets {
			if strings.Contains(p.log.String(), secret) {
				t.Errorf("%s has a virtual key in its log", p.name)
			}
		}
	}
	for _, r := range s.anthropic.Requests() {
		for _, secret := range secrets {
			if strings.Contains(fmt.Sprint(r), secret) {
				t.Error("a virtual key reached the upstream")
			}
		}
	}
}

// settle waits until the periodic workers have billed and posted everything.
func settle(t *testing.T, billing billingv1.BillingServiceClient, outbox outboxv1.OutboxServiceClient, used int64) *billingv1.AuditBillingResponse {
	t.Helper()
	var books *billingv1.AuditBillingResponse
	poll(t, func() bool {
		var err error
		if books, err = billing.AuditBilling(t.Context(), &billingv1.AuditBillingRequest{}); err != nil {
			t.Fatal(err)
		}
		var cost, charged, posted int64
		for _, team := range books.GetTeams() {
			cost += team.GetCostNanoUsd()
			charged += team.GetChargedNanoUsd()
			posted += team.GetPostedNanoUsd()
		}
		return cost == used && charged == posted
	})
	stats, err := outbox.GetStats(t.Context(), &outboxv1.GetStatsRequest{})
	if err != nil || stats.GetApplied() == 0 || !stats.GetSinkConfigured() {
		t.Errorf("outbox stats %v, %v", stats, err)
	}
	return books
}

// converse is what an agent does: a cached system prompt, a stream, an answer in
// one piece, a tool call and its result, thinking, and a retry after a 529.
func converse(t *testing.T, client sdk.Client, model string, session int) {
	t.Helper()
	ctx := t.Context()
	system := []sdk.TextBlockParam{{
		Text:         strings.Repeat("You keep the books. ", 200),
		CacheControl: sdk.NewCacheControlEphemeralParam(),
	}}
	ask := func(messages ...sdk.MessageParam) sdk.MessageNewParams {
		return sdk.MessageNewParams{Model: model, MaxTokens: 500, System: system, Messages: messages}
	}
	for turn := range 2 { // the second turn reads the cache that the first wrote
		text := stream(t, client, ask(sdk.NewUserMessage(sdk.NewTextBlock(fmt.Sprintf("Turn %d of session %d", turn, session)))))
		if text == "" {
			t.Error("a stream without text")
		}
	}
	answer, err := client.Messages.New(ctx, ask(sdk.NewUserMessage(sdk.NewTextBlock("In one piece [[sim:error=529;times=1]]"+model+fmt.Sprint(session)))))
	if err != nil || len(answer.Content) == 0 {
		t.Errorf("an answer in one piece: %v, %v", answer, err)
	}
	withTools := ask(sdk.NewUserMessage(sdk.NewTextBlock("What is the balance?")))
	withTools.Tools = []sdk.ToolUnionParam{{OfTool: &sdk.ToolParam{
		Name:        "balance",
		InputSchema: sdk.ToolInputSchemaParam{Properties: map[string]any{"team": map[string]any{"type": "string"}}, Required: []string{"team"}},
	}}}
	call, err := client.Messages.New(ctx, withTools)
	if err != nil || call.StopReason != sdk.StopReasonToolUse {
		t.Fatalf("a tool call: %v, %v", call, err)
	}
	withTools.Messages = append(withTools.Messages, call.ToParam())
	for _, block := range call.Content {
		if block.Type == "tool_use" {
			withTools.Messages = append(withTools.Messages, sdk.NewUserMessage(sdk.NewToolResultBlock(block.ID, "42 credits", false)))
		}
	}
	if text := stream(t, client, withTools); text == "" {
		t.Error("no answer to the tool's result")
	}
	count, err := client.Messages.CountTokens(ctx, sdk.MessageCountTokensParams{Model: model, Messages: withTools.Messages[:1]})
	if err != nil || count.InputTokens == 0 {
		t.Errorf("count_tokens: %v, %v", count, err)
	}
}

// stream sends one message and returns the text that arrived.
func stream(t *testing.T, client sdk.Client, params sdk.MessageNewParams) string {
	t.Helper()
	events := client.Messages.NewStreaming(t.Context(), params)
	var message sdk.Message
	for events.Next() {
		if err := message.Accumulate(events.Current()); err != nil {
			t.Fatal(err)
		}
	}
	if err := events.Err(); err != nil {
		t.Errorf("stream: %v", err)
	}
	var text strings.Builder
	for _, block := range message.Content {
		text.WriteString(block.Text)
	}
	return text.String()
}

// TestKillNineLosesNoMoney kills the proxy in mid-stream: what it had open is
// settled by the next one from the usage last seen, once, and nothing stays
// held.
func TestKillNineLosesNoMoney(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	first := s.start("proxysvc")
	key, err := keysv1.NewKeyServiceClient(keysvc.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: "session", TeamId: "acme", Limits: &keysv1.Limits{MaxBudgetNanoUsd: proto.Int64(1_000_000_000)},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp := post(t, first.http, key.GetSecret(), `{"model":"claude-haiku-4-5","max_tokens":500,"stream":true,"messages":[{"role":"user","content":"Long ago [[sim:stall=after:2]]"}]}`)
	buf := make([]byte, 1<<16)
	for got := ""; !strings.Contains(got, "content_block_delta"); {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	spend := proxyv1.NewSpendServiceClient(first.dial(t))
	proxy := proxyv1.NewProxyServiceClient(first.dial(t))
	open, err := proxy.ListOpenRequests(t.Context(), &proxyv1.ListOpenRequestsRequest{})
	if err != nil || len(open.GetOpenRequests()) != 1 || open.GetOpenRequests()[0].GetHeldNanoUsd() == 0 {
		t.Fatalf("open requests %v, %v, want one with a hold", open, err)
	}
	// A second request carries the first one's progress to the ledger before
	// the kill, as the heartbeat would.
	done := post(t, first.http, key.GetSecret(), `{"model":"claude-haiku-4-5","max_tokens":50,"messages":[{"role":"user","content":"Hi"}]}`)
	if _, err := io.Copy(io.Discard, done.Body); err != nil {
		t.Fatal(err)
	}
	first.kill()

	second := s.start("proxysvc")
	spend = proxyv1.NewSpendServiceClient(second.dial(t))
	var audit *proxyv1.AuditSpendResponse
	poll(t, func() bool {
		if audit, err = spend.AuditSpend(t.Context(), &proxyv1.AuditSpendRequest{}); err != nil {
			t.Fatal(err)
		}
		return audit.GetOpenRequests() == 0
	})
	if audit.GetRows() != 2 || audit.GetHeldNanoUsd() != 0 || len(audit.GetFaults()) > 0 {
		t.Errorf("audit %v", audit)
	}
	rows, err := spend.ListSpend(t.Context(), &proxyv1.ListSpendRequest{RequestId: open.GetOpenRequests()[0].GetRequestId()})
	if err != nil || len(rows.GetRows()) != 1 {
		t.Fatalf("rows %v, %v", rows, err)
	}
	if row := rows.GetRows()[0]; row.GetStatus() != proxyv1.SpendStatus_SPEND_STATUS_ABANDONED || !row.GetEstimated() || row.GetCostNanoUsd() == 0 {
		t.Errorf("row %v", row)
	}
}

// TestARevokedKeyIsStopped revokes a key while it streams.
func TestARevokedKeyIsStopped(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	proxysvc := s.start("proxysvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	key, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "session", TeamId: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"model":"claude-haiku-4-5","max_tokens":500,"stream":true,"messages":[{"role":"user","content":"Wait [[sim:stall=after:2]]"}]}`
	resp := post(t, proxysvc.http, key.GetSecret(), body)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if _, err := keys.RevokeKeys(t.Context(), &keysv1.RevokeKeysRequest{UserId: "session"}); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), "event: error") || !strings.Contains(string(text), "authentication_error") {
		t.Errorf("the stream ended with %v: %s", err, tail(string(text), 300))
	}
	poll(t, func() bool {
		again := post(t, proxysvc.http, key.GetSecret(), body)
		defer again.Body.Close()
		return again.StatusCode == http.StatusUnauthorized && again.Header.Get("X-Should-Retry") == "false"
	})
}

func post(t testing.TB, addr, key, body string) *http.Response {
	t.Helper()
	return call(t, http.MethodPost, "http://"+addr+"/v1/messages", key, body)
}

func call(t testing.TB, method, url, key, body string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	req.Header.Set("Anthropic-Version", "2023-06-01")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}
