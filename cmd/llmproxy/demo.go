package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/id"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// demoTeam pays for demos.
const demoTeam = "demo"

// demo runs the main job: issue a key, stream a message, follow its cost to
// Autumn.
func demo(ctx context.Context, args []string) error {
	s, _, err := command("demo", args, nil)
	if err != nil {
		return err
	}
	defer s.close()
	before, err := sinkBalance(ctx, s)
	if err != nil {
		return err
	}
	session := id.New("demo_", time.Now())
	key, err := s.keys.IssueSessionKey(ctx, &keysv1.IssueSessionKeyRequest{
		UserId: session, TeamId: demoTeam, TeamAlias: "Demo", Duration: "1h",
		Limits: &keysv1.Limits{MaxBudgetNanoUsd: proto.Int64(int64(money.USD))},
	})
	if err != nil {
		return fmt.Errorf("issue a session key: %w", err)
	}
	fmt.Printf("key       %s for session %s of team %s, $1 for 1h\n", key.GetKey().GetKeyName(), session, demoTeam)
	fmt.Print("answer    ")
	requestID, err := streamMessage(ctx, s.proxyURL, key.GetSecret())
	if err != nil {
		return fmt.Errorf("stream a message: %w", err)
	}
	if err := follow(ctx, s, requestID, before); err != nil {
		return err
	}
	v, err := takeVerdict(ctx, s, auditFlags{})
	if err != nil {
		return err
	}
	fmt.Println("audit")
	v.print()
	return v.err()
}

// streamMessage sends one message and prints its text as it arrives.
func streamMessage(ctx context.Context, proxyURL, key string) (requestID string, err error) {
	body := `{"model":"claude-haiku-4-5","max_tokens":300,"stream":true,"messages":[{"role":"user","content":"Say hello to the people who keep the books."}]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, proxyURL+"/v1/messages", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Api-Key", key)
	req.Header.Set("Anthropic-Version", "2023-06-01")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return "", fmt.Errorf("the proxy answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	split := sse.NewSplitter(1 << 20)
	buf := make([]byte, 4096)
	whole := false
	for {
		n, err := resp.Body.Read(buf)
		if err := split.Feed(buf[:n], func(e sse.Event) error {
			switch string(e.Name) {
			case "content_block_delta":
				var d struct{ Delta struct{ Text string } }
				if json.Unmarshal(e.Data, &d) == nil {
					fmt.Print(d.Delta.Text)
				}
			case "message_stop":
				whole = true
			case "error":
				return fmt.Errorf("error event: %s", e.Data)
			}
			return nil
		}); err != nil {
			return "", err
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	fmt.Println()
	if !whole {
		return "", errors.New("the answer ended without message_stop")
	}
	return resp.Header.Get("X-Llmproxy-Request-Id"), nil
}

// follow shows the request's way through the books.
func follow(ctx context.Context, s *suite, requestID, before string) error {
	rows, err := s.spend.ListSpend(ctx, &proxyv1.ListSpendRequest{RequestId: requestID})
	if err != nil || len(rows.GetRows()) != 1 {
		return fmt.Errorf("request %s has %d spend rows, want 1: %w", requestID, len(rows.GetRows()), err)
	}
	row := rows.GetRows()[0]
	u := row.GetUsage()
	fmt.Printf("spend     log %d, row %d: %s, %d tokens in, %d out, $%s\n", row.GetLogId(), row.GetSeq(), row.GetModel(),
		u.GetInputTokens(), u.GetOutputTokens(), money.NanoUSD(row.GetCostNanoUsd()))
	if _, err := s.billing.SyncNow(ctx, &billingv1.SyncNowRequest{}); err != nil {
		return fmt.Errorf("sync billing: %w", err)
	}
	events, err := s.billing.ListBillingEvents(ctx, &billingv1.ListBillingEventsRequest{RequestId: requestID})
	if err != nil || len(events.GetBillingEvents()) != 1 {
		return fmt.Errorf("request %s has %d billing events, want 1: %w", requestID, len(events.GetBillingEvents()), err)
	}
	event := events.GetBillingEvents()[0]
	fmt.Printf("event     %s: $%s × %s = $%s, %s credits\n", event.GetIdempotencyKey(), money.NanoUSD(event.GetCostNanoUsd()),
		event.GetMarkup(), money.NanoUSD(event.GetPriceNanoUsd()), event.GetCredits())
	charge, err := awaitCharge(ctx, s)
	if err != nil {
		return err
	}
	fmt.Printf("charge    %s, number %d of the team: %s credits, posted (proof: %s)\n",
		charge.GetChargeId(), charge.GetSeq(), charge.GetCredits(), charge.GetProof())
	after, err := sinkBalance(ctx, s)
	if err != nil {
		return err
	}
	fmt.Printf("autumn    %s credits before, %s after\n", before, after)
	return nil
}

// awaitCharge has the outbox deliver until the team's newest charge is posted.
func awaitCharge(ctx context.Context, s *suite) (*billingv1.Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.outbox.DeliverNow(ctx, &outboxv1.DeliverNowRequest{}); err != nil {
			return nil, fmt.Errorf("deliver charges: %w", err)
		}
		charges, err := s.billing.ListCharges(ctx, &billingv1.ListChargesRequest{TeamId: demoTeam, PageSize: 1})
		if err != nil {
			return nil, fmt.Errorf("list charges: %w", err)
		}
		if len(charges.GetCharges()) == 0 {
			return nil, errors.New("the team has no charge")
		}
		charge := charges.GetCharges()[0]
		if charge.GetState() == billingv1.ChargeState_CHARGE_STATE_POSTED {
			return charge, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("charge %s is not posted: %s; %s", charge.GetChargeId(), charge.GetState(), charge.GetLastError())
		}
	}
}

// sinkBalance is the demo team's balance at Autumn, in words when there is none.
func sinkBalance(ctx context.Context, s *suite) (string, error) {
	b, err := s.outbox.GetSinkBalance(ctx, &outboxv1.GetSinkBalanceRequest{TeamId: demoTeam})
	if status.Code(err) == codes.NotFound {
		return "no", nil
	}
	if err != nil {
		return "", fmt.Errorf("read Autumn's balance: %w", err)
	}
	return b.GetRemainingCredits(), nil
}
