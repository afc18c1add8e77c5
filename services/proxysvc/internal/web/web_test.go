package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/web"
)

func TestAStreamPassesByteForByteAndIsBilled(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	text := read(t, s.post(body(true, "[[sim:say=Good morning, Zürich]]")))
	row := s.row()
	if row.Status != ledger.Completed || row.Estimated || !row.Stream || row.HTTPStatus != 200 || row.StopReason != "end_turn" {
		t.Errorf("row = %+v", row)
	}
	s.checkUsage(row)
	if got := strings.Count(text, "event: "); got < 7 || !strings.Contains(text[strings.LastIndex(text, "event: "):], "message_stop") {
		t.Errorf("the stream has %d events and ends with %q", got, text[max(0, len(text)-80):])
	}
}

func TestAnAnswerThatIsNotStreamedIsBilled(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(false, ""))
	var message struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal([]byte(read(t, resp)), &message); err != nil || message.Type != "message" {
		t.Errorf("answer %+v, %v", message, err)
	}
	if resp.ContentLength <= 0 {
		t.Errorf("content-length is %d", resp.ContentLength)
	}
	row := s.row()
	s.checkUsage(row)
	if row.MessageID != message.ID || row.Status != ledger.Completed || resp.Header.Get("X-Litellm-Response-Cost") != row.Cost.String() {
		t.Errorf("row %+v, cost header %q", row, resp.Header.Get("X-Litellm-Response-Cost"))
	}
}

func TestWhatReachesTheUpstream(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	sent := `{ "model" : "claude-haiku-4-5" ,"max_tokens":5,"big":12345678901234567890,"messages":[{"role":"user","content":"\u00e9 <&>"}]}`
	resp := s.send(t.Context(), s.proxy.URL, virtualKey, "/v1/messages?beta=true", sent)
	read(t, resp)
	requests := s.sim.Requests()
	if len(requests) != 1 {
		t.Fatalf("%d requests reached the upstream, want 1", len(requests))
	}
	got := requests[0]
	sum := sha256.Sum256([]byte(sent))
	if got.BodySHA256 != hex.EncodeToString(sum[:]) || got.Query != "beta=true" {
		t.Errorf("body or query changed: %+v", got)
	}
	headers := fmt.Sprint(got.Header)
	if strings.Contains(headers, virtualKey) || strings.Contains(headers, "other") || !strings.Contains(headers, "unknown-beta-2099-01-01") {
		t.Errorf("headers upstream: %s", headers)
	}
	if !strings.Contains(headers, "real") || strings.Contains(headers, "Authorization") {
		t.Errorf("the real credential is not there once: %s", headers)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "Anthropic-Ratelimit") || name == "Anthropic-Organization-Id" || name == "Set-Cookie" {
			t.Errorf("%s reached the client", name)
		}
	}
	if resp.Header.Get("Request-Id") == "" || !strings.HasPrefix(resp.Header.Get("X-Llmproxy-Request-Id"), "req_") {
		t.Errorf("ids are missing: %v", resp.Header)
	}
}

func TestAPrefixedNameIsReplacedInPlace(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	sent := `{"max_tokens":5,"model":"anthropic/claude-haiku-4-5","messages":[{"role":"user","content":"anthropic/claude-haiku-4-5"}]}`
	read(t, s.post(sent))
	sum := sha256.Sum256([]byte(strings.Replace(sent, "anthropic/", "", 1)))
	if got := s.sim.Requests()[0].BodySHA256; got != hex.EncodeToString(sum[:]) {
		t.Error("more than the model changed in the body")
	}
	if row := s.row(); row.ModelGroup != "anthropic/claude-haiku-4-5" || row.Model != "claude-haiku-4-5" {
		t.Errorf("row names the models %q and %q", row.ModelGroup, row.Model)
	}
}

func TestUpstreamErrorsPassUnchangedAndCostNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 429, 500, 529} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			sent := body(true, fmt.Sprintf("[[sim:error=%d;retry_after=7]]", status))
			direct := s.send(t.Context(), s.upstream.URL, realKey, "/v1/messages", sent)
			through := s.post(sent)
			if direct.StatusCode != status || through.StatusCode != status {
				t.Fatalf("status %d directly, %d through the proxy, want %d", direct.StatusCode, through.StatusCode, status)
			}
			for _, name := range []string{"X-Should-Retry", "Retry-After", "Content-Type"} {
				if direct.Header.Get(name) != through.Header.Get(name) {
					t.Errorf("%s: %q directly, %q through the proxy", name, direct.Header.Get(name), through.Header.Get(name))
				}
			}
			if got, want := withoutID(read(t, through)), withoutID(read(t, direct)); got != want {
				t.Errorf("body %s, want %s", got, want)
			}
			if row := s.row(); row.Status != ledger.Failed || row.Cost != 0 || row.HTTPStatus != status || row.ErrorType == "" {
				t.Errorf("row = %+v", row)
			}
		})
	}
}

func withoutID(text string) string {
	before, _, _ := strings.Cut(text, `"request_id"`)
	return before
}

func TestOurOwnCredentialsFaultIsNotTheClients(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(false, "[[sim:error=401]]"))
	if text := read(t, resp); resp.StatusCode != 502 || !strings.Contains(text, `"api_error"`) {
		t.Errorf("%d %s, want 502 api_error", resp.StatusCode, text)
	}
	s.row()
}

func TestACutStreamIsCutForTheClientToo(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:cut=after:3;output_tokens=50]]"))
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		t.Error("the client saw a clean end of half an answer")
	}
	if n := strings.Count(string(text), "event: content_block_delta"); n != 3 {
		t.Errorf("%d deltas arrived, want 3", n)
	}
	row := s.row()
	entry := s.sim.Ledger()[0]
	if row.Status != ledger.Interrupted || !row.Estimated || row.MessageID != entry.ID || row.Usage.OutputTokens < 1 || row.Cost == 0 {
		t.Errorf("row = %+v", row)
	}
}

func TestAnErrorEventIsPassedOnAndSettled(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	text := read(t, s.post(body(true, "[[sim:stream_error=after:2]]")))
	if !strings.Contains(text, "event: error") || strings.Contains(text, "message_stop") {
		t.Errorf("stream = %s", text)
	}
	if row := s.row(); row.Status != ledger.Interrupted || row.ErrorType != "overloaded_error" || row.Cost == 0 {
		t.Errorf("row = %+v", row)
	}
}

func TestAClientThatLeavesIsBilledForWhatItGot(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	resp := s.send(ctx, s.proxy.URL, virtualKey, "/v1/messages", body(true, "[[sim:stall=after:2]]"))
	readUntil(t, resp.Body, "content_block_delta")
	leave()
	row := s.row()
	if row.Status != ledger.Aborted || !row.Estimated || row.Usage.InputTokens == 0 || row.Cost == 0 {
		t.Errorf("row = %+v", row)
	}
	s.upstream.Close() // waits for the simulator's handlers: it must see that we left
	if entry := s.sim.Ledger()[0]; entry.Finished {
		t.Error("the upstream call was not cancelled")
	}
}

func readUntil(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var got bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("the stream ended before %q: %v\n%s", want, err, got.String())
		}
	}
	return got.String()
}

func TestARevokedKeysStreamEndsWithATypedError(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:stall=after:2]]"))
	readUntil(t, resp.Body, "content_block_delta")
	s.running.Stop([]string{"key_1"}, nil, 1, "revoked")
	if rest := read(t, resp); !strings.Contains(rest, "event: error") || !strings.Contains(rest, "authentication_error") {
		t.Errorf("the stream ended with %q", rest)
	}
	if row := s.row(); row.Status != ledger.Stopped || row.Cost == 0 {
		t.Errorf("row = %+v", row)
	}
	again := s.post(body(true, ""))
	if again.StatusCode != 401 {
		t.Errorf("a request that was verified before the revocation got %d, want 401", again.StatusCode)
	}
}

func TestASilentUpstreamIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(_ *proxy.Key, set *proxy.Settings) { set.IdleTimeout = 300 * time.Millisecond })
	text := read(t, s.post(body(true, "[[sim:stall=after:1]]")))
	if !strings.Contains(text, "event: error") || !strings.Contains(text, "silent for too long") {
		t.Errorf("stream = %s", text)
	}
	if row := s.row(); row.Status != ledger.Stopped {
		t.Errorf("row = %+v", row)
	}
}

// blockLedger keeps every transaction of the ledger from committing until
// release.
func (s *stand) blockLedger() (release func()) {
	s.t.Helper()
	tx, err := s.db.Begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if err := tx.Rollback(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Errorf("release the ledger: %v", err)
		}
	})
	s.t.Cleanup(release)
	for locked := int64(0); locked == 0; { // until the log is open
		tag, err := tx.Exec(s.t.Context(), `select from spend.logs for update`)
		if err != nil {
			s.t.Fatal(err)
		}
		locked = tag.RowsAffected()
	}
	return release
}

func (s *stand) countRows() (rows int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), `select count(*) from spend.spend_logs`).Scan(&rows); err != nil {
		s.t.Fatal(err)
	}
	return rows
}

func TestNothingOfAnAnswerComesBeforeTheRequestIsOnTheLedger(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	read(t, s.post(body(false, ""))) // so that the log is open
	release := s.blockLedger()
	arrived := make(chan *http.Response, 1)
	go func() { arrived <- s.post(body(true, "")) }()
	for len(s.sim.Requests()) < 2 { // the call runs beside the admission
		select {
		case resp := <-arrived:
			t.Fatalf("an answer began before its request was on the ledger: %d", resp.StatusCode)
		default:
			runtime.Gosched()
		}
	}
	s.upstream.Close() // waits for the simulator: it has answered
	select {
	case resp := <-arrived:
		t.Fatalf("an answer began before its request was on the ledger: %d", resp.StatusCode)
	default:
	}
	release()
	if text := read(t, <-arrived); !strings.Contains(text, "message_stop") {
		t.Errorf("the answer is %q", text)
	}
}

func TestTheEndOfAnAnswerWaitsForTheLedger(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:delay_ms=100;output_tokens=100]]"))
	begun := readUntil(t, resp.Body, "message_start") // so it is admitted
	release := s.blockLedger()
	if !strings.Contains(begun, "message_delta") {
		readUntil(t, resp.Body, "message_delta")
	}
	arrived := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(resp.Body) // the text tells
		arrived <- string(rest)
	}()
	s.upstream.Close() // waits for the simulator: it has sent everything
	if !s.sim.Ledger()[0].Finished {
		t.Fatal("the simulator has not finished")
	}
	if n := s.countRows(); n != 0 {
		t.Fatalf("%d rows, want none yet", n)
	}
	select {
	case rest := <-arrived:
		t.Fatalf("the answer ended before it was on the ledger: %s", rest)
	default:
	}
	release()
	if rest := <-arrived; !strings.Contains(rest, "message_stop") {
		t.Errorf("the rest is %q", rest)
	}
	s.row()
}

// TestRefusals sends what is wrong: the answer is in Anthropic's shape, nothing
// reaches the upstream and nothing is written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) { k.Models = []string{"claude-haiku-*"} })
	tests := []struct {
		name, key, body string
		status          int
		kind            string
	}{
		{"no key", "", body(true, ""), 401, "authentication_error"},
		{"an unknown key", "sk-wrong", body(true, ""), 401, "authentication_error"},
		{"no JSON", virtualKey, `{"model":`, 400, "invalid_request_error"},
		{"no model", virtualKey, `{}`, 400, "invalid_request_error"},
		{"an unknown model", virtualKey, `{"model":"gpt-17","max_tokens":1}`, 404, "not_found_error"},
		{"a model that the key may not use", virtualKey, `{"model":"claude-opus-5-5","max_tokens":1}`, 403, "permission_error"},
		{"a body over the limit", virtualKey, `{"x":"` + strings.Repeat("x", web.MaxBody) + `"}`, 413, "request_too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := s.send(t.Context(), s.proxy.URL, tt.key, "/v1/messages", tt.body)
			var got struct {
				Type  string
				Error struct{ Type, Message string }
			}
			text := read(t, resp)
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			if resp.StatusCode != tt.status || got.Type != "error" || got.Error.Type != tt.kind || got.Error.Message == "" {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, text, tt.status, tt.kind)
			}
			if resp.Header.Get("X-Should-Retry") != "false" || resp.Header.Get("Request-Id") == "" {
				t.Errorf("headers %v", resp.Header)
			}
		})
	}
	if n := len(s.sim.Requests()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	rows, err := s.store.Rows(t.Context(), ledger.Filter{Limit: 1})
	if err != nil || len(rows) != 0 {
		t.Errorf("rows %v, %v, want none", rows, err)
	}
}

// TestAnAnswerThatBreaksOffIsBilled cuts an answer that is not streamed: it was
// generated, so an estimate is billed, and the client may try again.
func TestAnAnswerThatBreaksOffIsBilled(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(false, "[[sim:cut=after:1]]"))
	if text := read(t, resp); resp.StatusCode != 502 || resp.Header.Get("X-Should-Retry") != "true" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	row := s.row()
	if row.Status != ledger.Interrupted || !row.Estimated || row.Cost == 0 || row.Usage.InputTokens == 0 || row.Usage.OutputTokens == 0 {
		t.Errorf("row %+v", row)
	}
}

func TestAClosedGate(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]int{"exhausted": 402, "blocked": 403, "suspended": 403} {
		s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) { k.Gate.Status = status })
		if resp := s.post(body(true, "")); resp.StatusCode != want || resp.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s: %d, want %d", status, resp.StatusCode, want)
		}
	}
}

func TestAnUpstreamThatIsAwayIsA502(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.upstream.Close()
	resp := s.post(body(true, ""))
	if text := read(t, resp); resp.StatusCode != 502 || !strings.Contains(text, "api_error") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if row := s.row(); row.Status != ledger.Failed || row.Cost != 0 {
		t.Errorf("row = %+v", row)
	}
}

// TestACompressedAnswerIsNotFree has an upstream compress although it was asked
// not to: the client gets what it sent, and the worst case is billed.
func TestACompressedAnswerIsNotFree(t *testing.T) {
	t.Parallel()
	const unreadable = "\x1f\x8b not really gzip"
	s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("the upstream was asked for %q", got)
		}
		w.Header().Set("Content-Encoding", "br")
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, unreadable) //nolint:errcheck // the test reads it
	}), nil)
	resp := s.post(body(true, ""))
	if text := read(t, resp); text != unreadable || resp.Header.Get("Content-Encoding") != "br" {
		t.Errorf("the client got %q as %q", text, resp.Header.Get("Content-Encoding"))
	}
	row := s.row()
	if row.Cost == 0 || !row.Estimated || row.Status != ledger.Completed {
		t.Errorf("row = %+v", row)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) { k.Models = []string{"claude-haiku-4-5"} })
	get := func(version string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.proxy.URL+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+virtualKey)
		if version != "" {
			req.Header.Set("Anthropic-Version", version)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // read to its end
		return read(t, resp)
	}
	if got := get("2023-06-01"); !strings.Contains(got, `"type":"model","id":"claude-haiku-4-5"`) || strings.Contains(got, "opus") {
		t.Errorf("Anthropic's shape: %s", got)
	}
	if got := get(""); !strings.Contains(got, `"object":"list"`) || strings.Contains(got, "opus") {
		t.Errorf("OpenAI's shape: %s", got)
	}
}
