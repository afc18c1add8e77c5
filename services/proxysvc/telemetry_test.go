package proxysvc

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestTheLineOfARequest reads what is logged of one that has ended.
func TestTheLineOfARequest(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel := newTelemetry(Config{Serve: serve.Config{Name: "proxysvc", LogTo: &out}})
	begun := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	tel.settled(&ledger.Settlement{
		Request: ledger.Request{RequestID: "req_1", KeyID: "key_1", Token: "secret", TeamID: "team_1", UserID: "user_1", Model: "claude-x", StartedAt: begun},
		Status:  ledger.Failed, Estimated: true, HTTPStatus: 529, ErrorType: "overloaded_error", Cost: 12, EndedAt: begun.Add(1500 * time.Millisecond),
	})
	if err := tel.log.Sync(); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	delete(got, "ts")
	delete(got, "pid")
	want := map[string]any{
		"level": "info", "service": "proxysvc", "msg": "message", "request_id": "req_1", "team_id": "team_1", "user_id": "user_1", "key_id": "key_1",
		"model": "claude-x", "status": "failed", "estimated": true, "http_status": 529.0, "error_type": "overloaded_error", "cost_nano_usd": 12.0,
		"duration_ms": 1500.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the line (-want +got):\n%s", diff)
	}
}
