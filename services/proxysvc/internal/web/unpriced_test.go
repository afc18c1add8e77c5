package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	sim "github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// unpriced is a model that a wildcard routes and no list prices.
const unpriced = "claude-haiku-99"

func askUnpriced() string { return strings.Replace(body(false, ""), "claude-haiku-4-5", unpriced, 1) }

// routeAll lets a wildcard route any name.
func (s *stand) routeAll() {
	s.router.Replace(s.routing(`
model_list:
  - model_name: "claude-*"
    litellm_params: {model: "anthropic/claude-*", api_key: os.environ/ANTHROPIC_API_KEY}
`))
}

// alarmed checks that the model without a price was reported.
func (s *stand) alarmed() {
	s.t.Helper()
	select {
	case w := <-s.warned:
		if !w.Unpriced() || w.Account.ID != unpriced {
			s.t.Errorf("warned of %+v", w)
		}
	default:
		s.t.Error("nobody was warned")
	}
}

func TestAModelWithoutAPriceIsRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.routeAll()
	resp := s.post(askUnpriced())
	if text := read(t, resp); resp.StatusCode != http.StatusNotFound || !strings.Contains(text, "not_found_error") || !strings.Contains(text, unpriced) {
		t.Errorf("%d: %s", resp.StatusCode, text)
	}
	s.alarmed()
	if n := len(s.sim.Requests()); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestAModelWithoutAPriceIsChargedAsTheDearest(t *testing.T) {
	t.Parallel()
	provider := sim.New(sim.Options{APIKey: realKey})
	s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		known := strings.Replace(string(text), unpriced, "claude-haiku-4-5", 1) // it serves no other
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(known)), int64(len(known))
		provider.ServeHTTP(w, r)
	}), func(_ *proxy.Key, set *proxy.Settings) { set.ChargeDearest = true })
	s.routeAll()
	resp := s.post(askUnpriced())
	if text := read(t, resp); resp.StatusCode != http.StatusOK {
		t.Fatalf("%d: %s", resp.StatusCode, text)
	}
	s.alarmed()
	row := s.row()
	want, err := s.book.Dearest(row.StartedAt).Cost(row.Usage, row.StartedAt)
	if err != nil || row.Cost != want || row.Cost == 0 || row.Status != ledger.Completed || row.Model != unpriced {
		t.Errorf("%s costs %s, want %s, %v", row.Model, row.Cost, want, err)
	}
}
