package dev

import (
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

// openAIKey is planted like the secrets of every suite.
const openAIKey = "sk-openai-real-canary-0123456789"

// openAIConfig routes to OpenAI's simulator and nowhere else.
const openAIConfig = `
model_list:
  - model_name: gpt-5-mini
    litellm_params: {model: openai/gpt-5-mini, api_key: os.environ/OPENAI_API_KEY, api_base: os.environ/OPENAI_API_BASE}
`

// openAIPrice is OpenAI's price of gpt-5-mini in USD per million tokens: input,
// cached input, output. Reasoning is output.
var openAIPrice = [3]string{"0.25", "0.025", "2"}

// openAIScenarios are those of OpenAI's SDK. Streams of a chat that ask for no
// usage are rewritten: the ledger needs it.
var openAIScenarios = []scenario{
	{name: "a chat stream", upstream: 1, rows: statuses{completed}},
	{name: "a chat stream that asks for no usage", upstream: 1, rows: statuses{completed}, rewritten: true},
	{name: "a chat answer in one piece", upstream: 1, rows: statuses{completed}},
	{name: "a chat's tool and its result", upstream: 2, rows: statuses{completed, completed}},
	{name: "a chat's tool in a stream", upstream: 1, rows: statuses{completed}},
	{name: "a response in a stream", upstream: 1, rows: statuses{completed}},
	{name: "a response in one piece", upstream: 1, rows: statuses{completed}},
	{name: "a response's tool and its result", upstream: 2, rows: statuses{completed, completed}},
	{name: "a request of 20 MB", upstream: 1, rows: statuses{completed}},
	{name: "twenty streams at once", upstream: 20, rows: slices.Repeat(statuses{completed}, 20)},
	{name: "the list of models"},
	{name: "one model"},
	{name: "a bad request", upstream: 2, rows: statuses{failed, failed}},
	{name: "a wrong key"},
	{name: "a budget that is used up"},
	{name: "an unknown model"},
	{name: "a rate limit that passes", upstream: 2, rows: statuses{completed, failed}},
	{name: "an overload that passes", upstream: 3, rows: statuses{completed, failed, failed}},
	{name: "an error in a chat stream", upstream: 1, rows: statuses{interrupted}, early: "stream_error", rewritten: true},
	{name: "an error in a response's stream", upstream: 1, rows: statuses{interrupted}, early: "stream_error"},
	{name: "a response that fails", upstream: 1, rows: statuses{interrupted}, early: "failed"},
	{name: "a cut chat", upstream: 1, rows: statuses{interrupted}, early: "cut", rewritten: true},
	{name: "a cut response", upstream: 1, rows: statuses{interrupted}, early: "cut"},
	{name: "an abort of a chat", upstream: 1, rows: statuses{aborted}, early: "client_aborted", rewritten: true},
	{name: "an abort of a response", upstream: 1, rows: statuses{aborted}, early: "client_aborted"},
}

// TestPublishedClientsOfOpenAI is TestPublishedClients for OpenAI's routes.
func TestPublishedClientsOfOpenAI(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	sim := openai.New(openai.Options{APIKey: openAIKey})
	upstream := httptest.NewServer(sim)
	t.Cleanup(upstream.Close)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(openAIConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env["LLM_PROXY_CONFIG"], s.env["OPENAI_API_KEY"], s.env["OPENAI_API_BASE"] = config, openAIKey, upstream.URL
	runClients(t, s, ofOpenAI(sim), []client{{"OpenAI SDK", openAIScenarios, script("openai.mjs")}})
	assertNoLeak(t, s, ofOpenAI(sim), []string{openAIKey})
}

func ofOpenAI(s *openai.Server) simulator {
	return simulator{
		requests: func() (all []arrival) {
			for _, r := range s.Requests() {
				all = append(all, arrival{r.RequestID, r.Header, sent{
					r.Method, r.Path, r.Query, r.BodySHA256, r.Header.Get("Anthropic-Version"), r.Header.Get("Anthropic-Beta"),
				}})
			}
			return all
		},
		answers: func() (all []served) {
			for _, e := range s.Ledger() {
				all = append(all, servedByOpenAI(e))
			}
			return all
		},
	}
}

// servedByOpenAI takes apart what OpenAI counts as input, as the ledger does.
func servedByOpenAI(e openai.Entry) served {
	a := served{
		id: e.RequestID, messageID: e.ID, finished: e.Finished, early: e.Error, cost: openAIByHand,
		usage: &proxyv1.Usage{
			InputTokens:          e.Usage.InputTokens - e.Usage.CachedTokens - e.Usage.CacheWriteTokens,
			OutputTokens:         e.Usage.OutputTokens,
			ReasoningTokens:      e.Usage.ReasoningTokens,
			CacheReadInputTokens: e.Usage.CachedTokens,
		},
	}
	if !e.Reported {
		a.guessed = []protoreflect.Name{"input_tokens", "output_tokens", "reasoning_tokens", "cache_read_input_tokens"}
	}
	return a
}

func openAIByHand(t *testing.T, u *proxyv1.Usage) int64 {
	t.Helper()
	sum := big.NewRat(1, 2) // rounds half up
	for i, tokens := range []int64{u.GetInputTokens(), u.GetCacheReadInputTokens(), u.GetOutputTokens()} {
		rate, ok := new(big.Rat).SetString(openAIPrice[i])
		if !ok {
			t.Fatal(fmt.Errorf("no price %q", openAIPrice[i]))
		}
		sum.Add(sum, rate.Mul(rate, new(big.Rat).SetInt64(tokens*1000))) // USD per million → nano-dollars
	}
	return new(big.Int).Div(sum.Num(), sum.Denom()).Int64()
}
