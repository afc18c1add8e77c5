package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	sim "github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// pool is a stand whose model claude-haiku-4-5 has several deployments, each an
// upstream of its own with a real key of its own.
type pool struct {
	*stand
	sims []*sim.Server
	urls []string
}

// newPool makes a pool of n deployments named d0, d1, …; each has the settings
// of the same place, and the router those of `router`, in YAML's flow style.
func newPool(t *testing.T, router string, settings ...string) *pool {
	t.Helper()
	p := &pool{stand: newStand(t, nil)}
	for range settings {
		s := sim.New(sim.Options{APIKey: realKey})
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		p.sims, p.urls = append(p.sims, s), append(p.urls, server.URL)
	}
	p.router.Replace(p.routing(p.yaml(router, settings...)))
	return p
}

func (p *pool) yaml(router string, settings ...string) string {
	var text strings.Builder
	text.WriteString("model_list:\n")
	for i, set := range settings {
		fmt.Fprintf(&text, "  - model_name: claude-haiku-4-5\n    litellm_params: {model: anthropic/claude-haiku-4-5, api_key: %s, api_base: %q%s}\n    model_info: {id: d%d}\n",
			realKey, p.urls[i], set, i)
	}
	fmt.Fprintf(&text, "router_settings: {%s}\n", router)
	return text.String()
}

// asked counts the requests that each upstream got.
func (p *pool) asked() []int {
	var out []int
	for _, s := range p.sims {
		out = append(out, len(s.Requests()))
	}
	return out
}

// as makes the next requests those of another session.
func (p *pool) as(session string) {
	key := *p.keys.key.Load()
	key.UserID = session
	p.keys.key.Store(&key)
}

func (p *pool) want(asked ...int) {
	p.t.Helper()
	if got := p.asked(); fmt.Sprint(got) != fmt.Sprint(asked) {
		p.t.Errorf("the upstreams were asked %v times, want %v", got, asked)
	}
}

const first = ", order: 1"

func TestWithoutRetrySettingsNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"error=529", "error=500", "error=429;retry_after=1", "error=408", "error=409", "close=before_headers"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "", first, ", order: 2")
			p.sims[0].SetScript(script)
			resp := p.post(body(true, ""))
			if read(t, resp); resp.StatusCode < 400 {
				t.Errorf("status %d", resp.StatusCode)
			}
			p.want(1, 0)
			if row := p.row(); row.Status != ledger.Failed || row.Cost != 0 || row.Retries != 0 || row.ModelID != "d0" {
				t.Errorf("row %+v", row)
			}
		})
	}
}

func TestARetryGoesToAnotherDeploymentAndIsBilledOnce(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		"error=529", "error=500", "error=503;body=empty", "error=429;retry_after=20", "error=408;should_retry=true", "error=409;should_retry=true",
		"error=401", "error=403", "close=before_headers",
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "num_retries: 2", first, ", order: 2")
			p.sims[0].SetScript(script)
			resp := p.post(body(true, ""))
			if text := read(t, resp); resp.StatusCode != 200 || !strings.Contains(text, "message_stop") || resp.Header.Get("X-Litellm-Model-Id") != "d1" {
				t.Errorf("%d by %s: %s", resp.StatusCode, resp.Header.Get("X-Litellm-Model-Id"), text)
			}
			p.want(1, 1)
			row := p.row()
			if row.Status != ledger.Completed || row.Retries != 1 || row.ModelID != "d1" || row.Cost == 0 {
				t.Errorf("row %+v", row)
			}
		})
	}
}

// TestADeploymentWhoseTimeIsUpIsFollowedByTheNext has the first one say nothing, of a
// key without limits, whose requests are admitted beside the call: what became of the
// admission does not depend on how the attempt ended.
func TestADeploymentWhoseTimeIsUpIsFollowedByTheNext(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"timeout: 0.02", "stream_timeout: 0.02"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "num_retries: 1, allowed_fails: 1000", first+", "+setting, ", order: 2")
			p.sims[0].SetScript("first_byte_ms=60000")
			const n = 12
			for range n {
				resp := p.post(body(true, ""))
				if text := read(t, resp); resp.StatusCode != 200 || !strings.Contains(text, "message_stop") || resp.Header.Get("X-Litellm-Model-Id") != "d1" {
					t.Fatalf("%d by %s: %s", resp.StatusCode, resp.Header.Get("X-Litellm-Model-Id"), text)
				}
			}
			if got := p.asked(); got[0] == 0 || got[0] > n || got[1] != n { // on a busy machine a time may be up before its call
				t.Errorf("the upstreams were asked %v times, want at most %d and %d", got, n, n)
			}
		})
	}
}

// TestOnlyATimeoutIsTheClients has no other deployment to ask.
func TestOnlyATimeoutIsTheClients(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", ", order: 1, timeout: 0.02")
	p.sims[0].SetScript("first_byte_ms=60000")
	for range 12 {
		resp := p.post(body(false, ""))
		if text := read(t, resp); resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(text, "timeout_error") {
			t.Fatalf("%d: %s", resp.StatusCode, text)
		}
	}
}

func TestXShouldRetryFalseIsObeyed(t *testing.T) {
	t.Parallel()
	p := newPool(t, "num_retries: 3", first, ", order: 2")
	p.sims[0].SetScript("error=529;should_retry=false")
	if resp := p.post(body(true, "")); resp.StatusCode != 529 || resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d, x-should-retry %q", resp.StatusCode, resp.Header.Get("X-Should-Retry"))
	}
	p.want(1, 0)
}

func TestTheOnlyDeploymentIsAskedAgain(t *testing.T) {
	t.Parallel()
	p := newPool(t, "num_retries: 3", first)
	p.sims[0].SetScript("error=529;times=1")
	if resp := p.post(body(false, "")); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	p.want(2)
	if row := p.row(); row.Retries != 1 || row.Status != ledger.Completed {
		t.Errorf("row %+v", row)
	}
}

// TestALongRetryAfterIsTheClients has the only deployment ask for more patience
// than the proxy has: its answer is passed on as it is.
func TestALongRetryAfterIsTheClients(t *testing.T) {
	t.Parallel()
	p := newPool(t, "num_retries: 3", first)
	p.sims[0].SetScript("error=429;retry_after=90")
	if resp := p.post(body(true, "")); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "90" {
		t.Errorf("%d, retry-after %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	p.want(1)
}

func TestADeploymentThatAnswers429Cools(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", first, ", order: 2")
	p.sims[0].SetScript("error=429;retry_after=30")
	if resp := p.post(body(true, "")); resp.StatusCode != 429 {
		t.Errorf("status %d", resp.StatusCode)
	}
	p.sims[0].SetScript("")
	for range 3 {
		if resp := p.post(body(true, "")); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	p.want(1, 3)
}

func TestADeploymentThatFailsTooOftenCools(t *testing.T) {
	t.Parallel()
	p := newPool(t, "allowed_fails: 1, cooldown_time: 60", first, ", order: 2")
	p.sims[0].SetScript("error=500")
	for range 4 {
		p.post(body(true, ""))
	}
	p.want(2, 2)
}

func TestADeploymentThatRefusesOurKeyIsWithdrawn(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"401", "403"} {
		p := newPool(t, "", first, ", order: 2")
		p.sims[0].SetScript("error=" + status)
		resp := p.post(body(true, ""))
		if text := read(t, resp); resp.StatusCode != 502 || !strings.Contains(text, "api_error") {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
		for range 3 {
			if resp := p.post(body(true, "")); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		p.want(1, 3)
		if p.withdrawn.Load() != 1 {
			t.Errorf("reported %d times, want once", p.withdrawn.Load())
		}
		// Only when nothing else is left it is asked, and so heals.
		p.sims[0].SetScript("")
		p.sims[1].SetScript("error=401")
		p.post(body(true, ""))
		if resp := p.post(body(true, "")); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		p.want(2, 4)
	}
}

func TestFallbacks(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	broken := sim.New(sim.Options{APIKey: realKey, Script: "error=529"})
	server := httptest.NewServer(broken)
	t.Cleanup(server.Close)
	s.router.Replace(s.routing(fmt.Sprintf(`
model_list:
  - {model_name: main, litellm_params: {model: anthropic/claude-haiku-4-5, api_key: %s, api_base: %q}}
  - {model_name: spare, litellm_params: {model: anthropic/claude-opus-5-5, api_key: os.environ/ANTHROPIC_API_KEY}}
router_settings: {num_retries: 1, fallbacks: [{main: [spare]}]}
`, realKey, server.URL)))
	resp := s.post(strings.Replace(body(true, ""), "claude-haiku-4-5", "main", 1))
	if text := read(t, resp); resp.StatusCode != 200 || !strings.Contains(text, "claude-opus-5-5") {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	if n := len(broken.Requests()); n != 2 {
		t.Errorf("the main deployment was asked %d times, want 2", n)
	}
	row := s.row()
	if row.ModelGroup != "main" || row.Model != "claude-opus-5-5" || row.Retries != 2 {
		t.Errorf("row %+v", row)
	}
	s.checkUsage(row)
}

func TestDeploymentLimits(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", ", order: 1, rpm: 2", ", order: 2, rpm: 1")
	var statuses []int
	for range 4 {
		statuses = append(statuses, p.post(body(true, "")).StatusCode)
	}
	// A minute may turn in between; then one more is let through.
	if got := fmt.Sprint(statuses); got != "[200 200 200 429]" && got != "[200 200 200 200]" {
		t.Errorf("statuses %s", got)
	}
	if asked := p.asked(); asked[0] < 2 || asked[1] < 1 {
		t.Errorf("asked %v", asked)
	}
}

// TestASessionStaysWhereItsCacheIsWarm runs twelve sessions of five turns, whose
// prompts grow, over three real keys: all but each session's first turn read
// what the turn before has written.
func TestASessionStaysWhereItsCacheIsWarm(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", "", "", "")
	turn := `{"role":"user","content":[{"type":"text","text":"%s turn %d ` + strings.Repeat("and so on ", 50) + `","cache_control":{"type":"ephemeral"}}]}`
	turns, hits := 0, 0
	for n := range 12 {
		session := fmt.Sprintf("session-%d", n)
		p.as(session)
		var messages []string
		for i := range 5 {
			messages = append(messages, fmt.Sprintf(turn, session, i))
			resp := p.post(`{"model":"claude-haiku-4-5","max_tokens":50,"messages":[` +
				strings.Join(messages, `,{"role":"assistant","content":"yes"},`) + `]}`)
			var answer struct {
				Usage struct {
					Read int64 `json:"cache_read_input_tokens"`
				} `json:"usage"`
			}
			if err := json.Unmarshal([]byte(read(t, resp)), &answer); err != nil || resp.StatusCode != 200 {
				t.Fatalf("status %d, %v", resp.StatusCode, err)
			}
			if i > 0 {
				turns++
				if answer.Usage.Read > 0 {
					hits++
				}
			}
		}
	}
	t.Logf("%d of %d turns read the cache; the keys got %v requests", hits, turns, p.asked())
	if hits != turns {
		t.Errorf("%d of %d turns read the cache", hits, turns)
	}
	for i, n := range p.asked() {
		if n == 0 {
			t.Errorf("deployment d%d got nothing", i)
		}
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) {
		k.Aliases = map[string]string{"fast": "claude-haiku-4-5"}
		k.Models = []string{"fast"}
	})
	resp := s.post(strings.Replace(body(true, ""), "claude-haiku-4-5", "fast", 1))
	if text := read(t, resp); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	if row := s.row(); row.ModelGroup != "fast" || row.Model != "claude-haiku-4-5" {
		t.Errorf("row %+v", row)
	}
}

func TestThreadsGoWhereTheyLive(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", "", "")
	send := func(body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.proxy.URL+"/v1/messages", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+virtualKey)
		req.Header.Set("Anthropic-Version", "2026-10-21")
		req.Header.Set("Anthropic-Beta", "message-threads-2026-08-12")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // read to its end
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	turn := func(thread string) string {
		return `{"model":"claude-haiku-4-5","max_tokens":50,"thread":` + thread + `,"messages":[{"role":"user","content":"Go on."}]}`
	}
	var id struct {
		ID string `json:"id"`
	}
	if _, text := send(turn(`{"type":"create"}`)); json.Unmarshal([]byte(text), &id) != nil || id.ID == "" {
		t.Fatalf("no thread: %s", text)
	}
	begun := id.ID
	home := p.asked()
	// Whichever session goes on: the thread lives at one deployment.
	for n := range 6 {
		p.as(fmt.Sprintf("session-%d", n))
		status, text := send(turn(fmt.Sprintf(`{"type":"continue","previous_message_id":%q}`, id.ID)))
		if status != 200 || json.Unmarshal([]byte(text), &id) != nil {
			t.Fatalf("%d %s", status, text)
		}
	}
	if asked := p.asked(); asked[0]*asked[1] != 0 {
		t.Errorf("the upstreams were asked %v times, after %v", asked, home)
	}
	// Another team shares the real key, but not the conversation.
	other := *p.keys.key.Load()
	other.TeamID = "globex"
	mine := p.keys.key.Swap(&other)
	for _, unknown := range []string{begun, "msg_nobody"} {
		status, text := send(turn(fmt.Sprintf(`{"type":"continue","previous_message_id":%q}`, unknown)))
		if status != 404 || !strings.Contains(text, `"error_code":"thread_not_found"`) {
			t.Errorf("%d %s", status, text)
		}
	}
	p.keys.key.Store(mine)
	// A deployment that is gone is said to be gone.
	p.router.Replace(p.routing(`
model_list:
  - {model_name: claude-haiku-4-5, litellm_params: {model: anthropic/claude-haiku-4-5, api_key: k}, model_info: {id: d9}}`))
	if status, text := send(turn(fmt.Sprintf(`{"type":"continue","previous_message_id":%q}`, id.ID))); status != 404 || !strings.Contains(text, "does not serve this model any more") {
		t.Errorf("%d %s", status, text)
	}
}

// TestRoutingIsReplacedUnderARunningStream changes the routing while a stream
// runs: it ends whole, and the next request goes the new way.
func TestRoutingIsReplacedUnderARunningStream(t *testing.T) {
	t.Parallel()
	p := newPool(t, "", first, ", order: 2")
	resp := p.post(body(true, "[[sim:stall_pings=after:2;stall_pings_ms=300]]"))
	readUntil(t, resp.Body, "content_block_delta")
	p.router.Replace(p.routing(p.yaml("", ", order: 2", first)))
	if text := read(t, resp); !strings.Contains(text, "message_stop") {
		t.Errorf("the stream ended with %q", text[max(0, len(text)-200):])
	}
	if next := p.post(body(true, "")); next.Header.Get("X-Litellm-Model-Id") != "d1" {
		t.Errorf("the next request went to %s", next.Header.Get("X-Litellm-Model-Id"))
	}
	p.want(1, 1)
}
