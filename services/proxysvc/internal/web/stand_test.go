package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/config"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledgertest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/upstream"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/web"
	sim "github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

const (
	realKey    = "sk-ant-real-key"
	virtualKey = "sk-virtual-key"
)

// oneKey knows one virtual key.
type oneKey struct{ key atomic.Pointer[proxy.Key] }

func (o *oneKey) Verify(_ context.Context, key secret.String) (*proxy.Key, error) {
	if !key.Equal(virtualKey) {
		return nil, fault.Errorf(fault.Unauthenticated, "invalid api key")
	}
	return o.key.Load(), nil
}

// stand is the data path in front of the simulator, on a real ledger.
type stand struct {
	t        testing.TB
	db       *pgxpool.Pool
	store    *store.Store
	cable    *ledgertest.Cable
	sim      *sim.Server
	upstream *httptest.Server
	proxy    *httptest.Server
	running  *proxy.Running
	keys     *oneKey
	book     *pricing.Book
	router   *proxy.Router
	// withdrawn counts the reports of refused credentials.
	withdrawn atomic.Int64
	warned    chan ledger.Warning
}

func newStand(t *testing.T, edit func(*proxy.Key, *proxy.Settings)) *stand {
	t.Helper()
	return newStandBefore(t, nil, edit)
}

// newStandBefore puts the data path in front of another upstream than the
// simulator.
func newStandBefore(t testing.TB, provider http.Handler, edit func(*proxy.Key, *proxy.Settings)) *stand {
	t.Helper()
	return newStandWithin(t, web.Limits{BodyMemory: 256 << 20, BodyTime: time.Minute, BodyIdle: time.Minute, ClientTimeout: time.Minute}, provider, edit)
}

// newStandWithin sets the limits for clients too.
func newStandWithin(t testing.TB, limits web.Limits, provider http.Handler, edit func(*proxy.Key, *proxy.Settings)) *stand {
	t.Helper()
	s := &stand{t: t, db: pgtest.New(t, store.Schema, store.Migrations), running: proxy.NewRunning(false), keys: &oneKey{}, warned: make(chan ledger.Warning, 100)}
	s.store = store.New(s.db)
	s.cable = &ledgertest.Cable{Store: s.store}
	s.sim = sim.New(sim.Options{APIKey: realKey})
	if provider == nil {
		provider = s.sim
	}
	s.upstream = httptest.NewServer(provider)
	t.Cleanup(s.upstream.Close)
	key := &proxy.Key{KeyID: "key_1", Token: "t", TeamID: "acme", UserID: "session", Gate: proxy.Gate{Status: "active"}}
	set := proxy.Settings{IdleTimeout: time.Minute, ProgressInterval: time.Second, SettleTimeout: 20 * time.Second, BudgetExceededStatus: 402}
	if edit != nil {
		edit(key, &set)
	}
	s.keys.key.Store(key)
	var err error
	if s.book, err = pricing.Default(); err != nil {
		t.Fatal(err)
	}
	s.router = proxy.NewRouter(s.routing(string(config.Default)))
	book, _, err := journal.Open[ledger.Record](t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	writer := ledger.NewWriter(s.cable, book, nil, ledger.Settings{
		Instance: "test", Heartbeat: 50 * time.Millisecond, Silence: time.Minute, Retry: 5 * time.Millisecond, AdmitTimeout: 10 * time.Second,
	}, quiet{})
	ended := make(chan error, 1)
	go func() { ended <- writer.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		writer.Stop()
		if err := <-ended; err != nil {
			t.Errorf("writer: %v", err)
		}
		if err := book.Close(); err != nil {
			t.Error(err)
		}
		s.audit()
	})
	svc := proxy.New(proxy.Parts{
		Keys: s.keys, Ledger: writer, Threads: s.store, Upstream: upstream.New(), Router: s.router, Book: s.book,
		Running: s.running, Settled: func(*ledger.Settlement) {}, Settings: set,
		Withdrawn: func(d proxy.Deployment, status int) { s.withdrawn.Add(1) }, Warn: func(w ledger.Warning) { s.warned <- w },
	})
	h := web.New(svc, limits, func(id string, err error) { t.Logf("%s: %v", id, err) })
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", h.CreateMessage)
	mux.HandleFunc("POST /v1/messages/count_tokens", h.CountTokens)
	mux.HandleFunc("POST /v1/chat/completions", h.ChatCompletions)
	mux.HandleFunc("POST /v1/responses", h.Responses)
	mux.HandleFunc("GET /v1/models", h.Models)
	mux.HandleFunc("GET /v1/models/{id...}", func(w http.ResponseWriter, r *http.Request) { h.Model(w, r, r.PathValue("id")) })
	s.proxy = httptest.NewServer(mux)
	t.Cleanup(s.proxy.Close)
	return s
}

// routing reads a config.yaml. ANTHROPIC_API_BASE is the stand's upstream.
func (s *stand) routing(text string) proxy.Routing {
	s.t.Helper()
	c, err := config.Read([]byte(text), func(name string) (string, error) {
		return map[string]string{"ANTHROPIC_API_KEY": realKey, "ANTHROPIC_API_BASE": s.upstream.URL}[name], nil
	}, s.book)
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Routing
}

type quiet struct{}

func (quiet) Committed(int, int, time.Duration) {}
func (quiet) Trouble(string, error)             {}

func (s *stand) audit() {
	a, err := s.store.Audit(context.WithoutCancel(s.t.Context()))
	if err != nil || len(a.Faults) > 0 || a.OpenRequests != 0 || a.Held != 0 {
		s.t.Errorf("audit after the test: %+v, %v", a, err)
	}
}

// body is a request; script steers the simulator.
func body(stream bool, script string) string {
	return fmt.Sprintf(`{"model":"claude-haiku-4-5","max_tokens":400,"stream":%t,"messages":[{"role":"user","content":"Hello there. %s"}]}`, stream, script)
}

func (s *stand) send(ctx context.Context, url, key, path, body string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	req.Header.Set("Authorization", "Bearer "+key) // Claude Code may send both
	if key == realKey {
		req.Header.Del("Authorization")
	}
	req.Header.Set("Anthropic-Version", "2023-06-01")
	req.Header.Set("Anthropic-Beta", "unknown-beta-2099-01-01")
	req.Header.Set("X-Custom", "prefix "+key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept-Encoding", "gzip") // so that the Go client decodes nothing
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() }) // the test is over
	return resp
}

func (s *stand) post(body string) *http.Response {
	s.t.Helper()
	return s.send(s.t.Context(), s.proxy.URL, virtualKey, "/v1/messages", body)
}

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// row waits for the one row on the ledger.
func (s *stand) row() ledger.Row {
	s.t.Helper()
	return s.rows(1)[0]
}

// rows waits for so many rows on the ledger, the last one first.
func (s *stand) rows(n int) []ledger.Row {
	s.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := s.store.Rows(s.t.Context(), ledger.Filter{Limit: 10})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(rows) > n {
			s.t.Fatalf("%d rows, want %d", len(rows), n)
		}
		if len(rows) == n {
			return rows
		}
		<-tick.C
	}
}

// checkUsage holds the row against what the simulator says it used, priced by
// the book.
func (s *stand) checkUsage(r ledger.Row) {
	s.t.Helper()
	entries := s.sim.Ledger()
	if len(entries) != 1 || entries[0].ID != r.MessageID {
		s.t.Fatalf("the simulator answered %+v, the row is of %s", entries, r.MessageID)
	}
	var wire struct {
		InputTokens   int64 `json:"input_tokens"`
		OutputTokens  int64 `json:"output_tokens"`
		CacheRead     int64 `json:"cache_read_input_tokens"`
		CacheCreation struct {
			W5m int64 `json:"ephemeral_5m_input_tokens"`
			W1h int64 `json:"ephemeral_1h_input_tokens"`
		} `json:"cache_creation"`
	}
	text, err := json.Marshal(entries[0].Usage)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		s.t.Fatal(err)
	}
	want := pricing.Usage{
		InputTokens: wire.InputTokens, OutputTokens: wire.OutputTokens, CacheReadTokens: wire.CacheRead,
		CacheWrite5mTokens: wire.CacheCreation.W5m, CacheWrite1hTokens: wire.CacheCreation.W1h,
	}
	got := r.Usage
	got.ServiceTier, got.InferenceGeo, got.Speed = "", "", ""
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("usage differs from the simulator's (-want +got):\n%s", diff)
	}
	cost, err := s.book.Cost(r.Model, want, r.StartedAt)
	if err != nil || cost != r.Cost || cost == 0 {
		s.t.Errorf("cost %d, want %d, %v", r.Cost, cost, err)
	}
}
