package chaos

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// upstream is Anthropic's simulator with a note of which attempt each answer was
// for: an attempt's name is its User-Agent, which passes the proxy unchanged and
// stands on the ledger too.
type upstream struct {
	sim *anthropic.Server

	mu      sync.Mutex
	running int
	asked   map[string][]string // the simulator's request ids by attempt
}

func newUpstream() *upstream {
	return &upstream{sim: anthropic.New(anthropic.Options{APIKey: realKey}), asked: map[string][]string{}}
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.count(1)
	defer u.count(-1)
	u.sim.ServeHTTP(w, r)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked[r.UserAgent()] = append(u.asked[r.UserAgent()], w.Header().Get("Request-Id"))
}

func (u *upstream) count(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.running += n
}

func (u *upstream) quiet() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.running == 0
}

// served is the truth: what was really served for an attempt.
type served struct {
	anthropic.Entry
	used usage
}

// usage is what is priced, in tokens.
type usage struct{ input, output, write5m, write1h, read int64 }

// served returns the simulator's answers by attempt.
func (u *upstream) served(t *testing.T) map[string][]served {
	t.Helper()
	byRequest := map[string]anthropic.Entry{}
	for _, e := range u.sim.Ledger() {
		byRequest[e.RequestID] = e
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[string][]served{}
	for attempt, ids := range u.asked {
		for _, id := range ids {
			if e, ok := byRequest[id]; ok {
				out[attempt] = append(out[attempt], served{e, usageOf(t, e)})
				delete(byRequest, id)
			}
		}
	}
	if len(byRequest) > 0 {
		t.Errorf("%d answers of the simulator belong to no attempt", len(byRequest))
	}
	return out
}

func usageOf(t *testing.T, e anthropic.Entry) usage {
	t.Helper()
	var u struct {
		InputTokens   int64 `json:"input_tokens"`
		OutputTokens  int64 `json:"output_tokens"`
		CacheRead     int64 `json:"cache_read_input_tokens"`
		CacheCreation struct {
			W5m int64 `json:"ephemeral_5m_input_tokens"`
			W1h int64 `json:"ephemeral_1h_input_tokens"`
		} `json:"cache_creation"`
	}
	text, err := json.Marshal(e.Usage)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &u); err != nil {
		t.Fatal(err)
	}
	return usage{u.InputTokens, u.OutputTokens, u.CacheCreation.W5m, u.CacheCreation.W1h, u.CacheRead}
}
