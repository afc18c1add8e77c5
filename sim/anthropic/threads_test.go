package anthropic_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

const otherKey = "sk-ant-key2"

// threads is the header with which the field thread is known.
var threads = map[string]string{"anthropic-beta": "some-beta, message-threads-2026-08-12"}

// ask sends a request of a thread with one of the accepted keys.
func (b bundle) ask(t *testing.T, key, path, body string) (*http.Response, []byte) {
	t.Helper()
	header := map[string]string{"x-api-key": key, "anthropic-beta": threads["anthropic-beta"]}
	resp, answer, err := b.do(t, b.request(t, "POST", path, body, header))
	if err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func continued(id string) string {
	return `,"thread":{"type":"continue","previous_message_id":"` + id + `"}`
}

const created = `,"thread":{"type":"create"}`

// idOf returns the id of a message, streamed or not.
func idOf(t *testing.T, answer []byte) string {
	t.Helper()
	if answer[0] == '{' {
		return decode[reply](t, answer).ID
	}
	return decode[struct{ Message reply }](t, []byte(events(t, answer)[0].data)).Message.ID
}

func usageOf(t *testing.T, answer []byte) anthropic.Usage {
	t.Helper()
	if answer[0] == '{' {
		return decode[reply](t, answer).Usage
	}
	return lastUsage(t, answer)
}

// TestAThreadCountsLikeTheWholeConversation sends two turns as a thread, and the
// second one whole without a thread: tokens, caches and answers are the same.
func TestAThreadCountsLikeTheWholeConversation(t *testing.T) {
	t.Parallel()
	const tools = `,"system":[{"type":"text","text":"be brief, be brief","cache_control":{"type":"ephemeral"}}]` + bashTool
	for name, stream := range map[string]string{"in one piece": "", "streamed": streaming} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, anthropic.Options{APIKeys: []string{otherKey}})
			result := `{"role":"user","content":[{"type":"tool_result","tool_use_id":"x","content":"done"}]}`
			_, first := b.ask(t, realKey, "/v1/messages", say("list the files", stream+tools+created))
			turn := `{"model":"claude-haiku-4-5","max_tokens":1000,"messages":[` + result + `]` + stream + continued(idOf(t, first)) + `}`
			resp, second := b.ask(t, realKey, "/v1/messages", turn)
			if resp.StatusCode != 200 {
				t.Fatalf("status = %d: %s", resp.StatusCode, second)
			}
			resp, third := b.ask(t, realKey, "/v1/messages", say("and now?", stream+continued(idOf(t, second))))
			if resp.StatusCode != 200 || !strings.Contains(string(third), "tool_use") {
				t.Errorf("status = %d, want a call of the thread's tool: %s", resp.StatusCode, third)
			}

			fresh := start(t, anthropic.Options{})
			_, shown := fresh.post(t, say("list the files", tools))
			content, _ := json.Marshal(decode[struct{ Content json.RawMessage }](t, shown).Content)
			whole := strings.Replace(say("list the files", tools), `}],`, `},{"role":"assistant","content":`+string(content)+`},`+result+`],`, 1)
			_, want := fresh.post(t, whole)
			if diff := cmp.Diff(usageOf(t, want), usageOf(t, second)); diff != "" {
				t.Errorf("usage of the second turn (-whole +thread):\n%s", diff)
			}
			if usageOf(t, second).CacheReadInputTokens == 0 {
				t.Error("the second turn read nothing from the cache")
			}
			_, counted := b.ask(t, realKey, "/v1/messages/count_tokens", turn)
			u := usageOf(t, second)
			if got := decode[map[string]int64](t, counted)["input_tokens"]; got != u.InputTokens+u.CacheReadInputTokens+u.CacheCreationInputTokens {
				t.Errorf("count_tokens = %d, want that of %+v", got, u)
			}
		})
	}
}

func TestAThreadBelongsToItsCredential(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{APIKeys: []string{otherKey}})
	_, first := b.ask(t, realKey, "/v1/messages", say("hi", created))
	id := idOf(t, first)
	for key, want := range map[string]int{realKey: 200, otherKey: 404} {
		resp, body := b.ask(t, key, "/v1/messages", say("go on", continued(id)))
		if resp.StatusCode != want {
			t.Errorf("status with %s = %d, want %d: %s", key, resp.StatusCode, want, body)
		}
		if want != 404 {
			continue
		}
		got := decode[apiError](t, body).Error
		if got.Type != "not_found_error" || got.Message != "thread: message "+id+" not found" || !strings.Contains(string(body), `"error_code":"thread_not_found"`) {
			t.Errorf("error = %s, want that the message is not found", body)
		}
	}
	ends := map[string]bool{}
	for _, r := range b.Requests() {
		ends[r.Key] = true
	}
	if diff := cmp.Diff(map[string]bool{"real": true, "key2": true}, ends); diff != "" {
		t.Errorf("keys of the requests (-want +got):\n%s", diff)
	}
}

func TestWhatEndsEarlyOrWasNotAskedForIsNotHeld(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, body := range []string{say("hi", ""), say("[[sim:stream_error=after:2]]", created+streaming)} {
		_, answer := b.ask(t, realKey, "/v1/messages", body)
		if resp, _ := b.ask(t, realKey, "/v1/messages", say("go on", continued(idOf(t, answer)))); resp.StatusCode != 404 {
			t.Errorf("status after %s = %d, want 404", body, resp.StatusCode)
		}
	}
	_, answer := b.ask(t, realKey, "/v1/messages", say("hi", created))
	other := strings.Replace(say("go on", continued(idOf(t, answer))), "claude-haiku-4-5", "claude-opus-5-5", 1)
	if resp, _ := b.ask(t, realKey, "/v1/messages", other); resp.StatusCode != 400 {
		t.Errorf("status with another model = %d, want 400", resp.StatusCode)
	}
	b.Reset()
	if resp, _ := b.ask(t, realKey, "/v1/messages", say("go on", continued(idOf(t, answer)))); resp.StatusCode != 404 {
		t.Errorf("status after a reset = %d, want 404", resp.StatusCode)
	}
}

func TestAThreadIsForgottenAfterFiveMinutes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	b := start(t, anthropic.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	_, answer := b.ask(t, realKey, "/v1/messages", say("hi", created))
	for _, step := range []struct {
		wait time.Duration
		want int
	}{{4 * time.Minute, 200}, {4 * time.Minute, 200}, {5 * time.Minute, 404}} {
		pass(step.wait)
		resp, body := b.ask(t, realKey, "/v1/messages", say("go on", continued(idOf(t, answer))))
		if resp.StatusCode != step.want {
			t.Fatalf("status = %d, want %d: %s", resp.StatusCode, step.want, body)
		}
		answer = body
	}
}

func TestEveryKeyHasItsOwnCache(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{APIKeys: []string{otherKey}})
	body := say("hi", `,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}]`)
	for _, step := range []struct {
		key  string
		read bool
	}{{realKey, false}, {otherKey, false}, {realKey, true}, {otherKey, true}} {
		_, answer := b.ask(t, step.key, "/v1/messages", body)
		if got := usageOf(t, answer).CacheReadInputTokens > 0; got != step.read {
			t.Errorf("with %s the cache was read: %v, want %v", step.key, got, step.read)
		}
	}
}
