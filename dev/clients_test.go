package dev

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// seat is what one client is given.
type seat struct {
	client    string
	url       string // of the proxy, without /v1
	key       string
	poorKey   string // its budget is too small for any request
	scenarios []string
}

// wrongKey has the form of a virtual key and belongs to no one.
const wrongKey = "sk-wrong0123456789wrong0123456789wrong0123456789xx"

// report is what a client says of one scenario: clients/scenario.mjs prints it.
type report struct {
	Name    string
	OK      bool
	Detail  string
	Sent    []sent
	Answers []answered
}

// sent is one request as it left the client.
type sent struct {
	Method     string
	Path       string
	Query      string
	BodySHA256 string `json:"body_sha256"`
	Version    string // anthropic-version
	Beta       string // anthropic-beta
}

// answered is one answer as it arrived at the client. Tokens are negative if the
// client is not told them.
type answered struct {
	ID           string
	RequestID    string `json:"request_id"` // the upstream's, or "-" if the client does not tell it
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
}

// client is a published client: play runs scenarios with it and reports on each.
type client struct {
	name      string
	scenarios []scenario
	play      func(*testing.T, seat) []report
}

func clients() []client {
	return []client{
		{"TypeScript SDK 1", slices.Concat(commonScenarios, sdkScenarios, typeScriptScenarios, threadScenarios), script("anthropic.mjs", "anthropic-1")},
		{"TypeScript SDK 0", slices.Concat(commonScenarios, sdkScenarios, typeScriptScenarios), script("anthropic.mjs", "anthropic-0")},
		{"Go SDK 2", slices.Concat(commonScenarios, sdkScenarios), golang(connectSDK2)},
		{"Go SDK 1", slices.Concat(commonScenarios, sdkScenarios), golang(connectSDK1)},
		{"AI SDK 7", slices.Concat(commonScenarios, aiScenarios), script("ai.mjs")},
	}
}

// TestPublishedClients runs the clients that people use, as they are published,
// against the four processes. What each client sent is what the simulator got;
// what the simulator used is on the ledger, to the token and to the
// nano-dollar, and billed.
func TestPublishedClients(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	runClients(t, s, ofAnthropic(s.anthropic), clients())
}

// runClients starts the four processes and runs all clients at once.
func runClients(t *testing.T, s *suite, sim simulator, clients []client) {
	t.Helper()
	keysvc, proxysvc := s.start("keysvc"), s.start("proxysvc")
	billingsvc, outboxsvc := s.start("billingsvc"), s.start("outboxsvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	spend := proxyv1.NewSpendServiceClient(proxysvc.dial(t))
	secrets := []string{wrongKey}
	t.Run("clients", func(t *testing.T) { // returns when all clients are done
		for _, c := range clients {
			at := seat{client: c.name, url: "http://" + proxysvc.http, key: issue(t, keys, c.name, nil), poorKey: issue(t, keys, c.name, proto.Int64(1))}
			for _, sc := range c.scenarios {
				at.scenarios = append(at.scenarios, sc.name)
			}
			secrets = append(secrets, at.key, at.poorKey)
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				reports := c.play(t, at)
				compare(t, c, reports, booksOf(t, sim, spend, c.name))
			})
		}
	})
	var cost int64
	for _, row := range rows(t, spend, "") {
		cost += row.GetCostNanoUsd()
	}
	books := settle(t, billingv1.NewBillingServiceClient(billingsvc.dial(t)), outboxv1.NewOutboxServiceClient(outboxsvc.dial(t)), cost)
	if len(books.GetTeams()) != len(clients) || len(books.GetFaults()) > 0 {
		t.Errorf("billed %v", books)
	}
	assertNoLeak(t, s, sim, secrets)
}

// issue makes a key of the client's team, with a budget if max is not nil.
func issue(t *testing.T, keys keysv1.KeyServiceClient, team string, limit *int64) string {
	t.Helper()
	user := team
	if limit != nil {
		user += " without money"
	}
	key, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: user, TeamId: team, Limits: &keysv1.Limits{MaxBudgetNanoUsd: limit},
	})
	if err != nil {
		t.Fatal(err)
	}
	return key.GetSecret()
}

// assertNoLeak looks for virtual keys in the logs, and upstream.
func assertNoLeak(t *testing.T, s *suite, sim simulator, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		for _, p := range s.processes {
			if strings.Contains(p.log.String(), secret) {
				t.Errorf("%s has a virtual key in its log", p.name)
			}
		}
	}
	for _, r := range sim.requests() {
		text := fmt.Sprint(r)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("a virtual key reached the upstream: %s", r.Path)
			}
		}
		// A simulator writes "other" in place of a key that is not the real one.
		for _, name := range []string{"X-Api-Key", "Authorization"} {
			if v := r.header.Get(name); v != "" && v != "real" && v != "Bearer real" {
				t.Errorf("%s reached the upstream with %s %s", r.Path, name, v)
			}
		}
	}
}

// compare makes a subtest of each scenario.
func compare(t *testing.T, c client, reports []report, b books) {
	t.Helper()
	byName := map[string]report{}
	for _, r := range reports {
		if _, twice := byName[r.Name]; twice {
			t.Errorf("two reports on %q", r.Name)
		}
		byName[r.Name] = r
	}
	if len(byName) > len(c.scenarios) {
		t.Errorf("%d scenarios were played, %d are known", len(byName), len(c.scenarios))
	}
	for _, sc := range c.scenarios {
		t.Run(sc.name, func(t *testing.T) {
			r, played := byName[sc.name]
			if !played || !r.OK {
				t.Errorf("played: %v; %s", played, r.Detail)
			}
			b.compare(t, sc, r)
		})
	}
	b.balance(t)
}

// compare holds what the client saw against what the simulator and the ledger
// have of the same scenario.
func (b books) compare(t *testing.T, sc scenario, r report) {
	t.Helper()
	arrived := b.arrived[sc.name]
	if len(arrived) != sc.upstream {
		t.Errorf("%d requests reached the simulator, want %d", len(arrived), sc.upstream)
	}
	left := map[sent]bool{}
	for _, request := range r.Sent {
		request.Path = strings.Replace(request.Path, "/v1/v1/", "/v1/", 1) // the proxy takes both
		left[request] = true
	}
	var got statuses
	for _, request := range arrived {
		if !left[request.sent] && !sc.rewritten {
			t.Errorf("the simulator got %+v, which is none of %+v", request.sent, r.Sent)
		}
		if row := b.rows[request.id]; row != nil {
			got = append(got, row.GetStatus())
		}
		if e, ok := b.served[request.id]; ok && e.early != sc.early {
			t.Errorf("the simulator ended an answer with %q, want %q", e.early, sc.early)
		}
	}
	if diff := cmp.Diff(sc.rows, slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if slices.Contains(sc.rows, completed) && len(r.Answers) == 0 {
		t.Error("the client noted no answer")
	}
	for _, a := range r.Answers {
		b.compareAnswer(t, a)
	}
}

func (b books) compareAnswer(t *testing.T, a answered) {
	t.Helper()
	for id, e := range b.served {
		if e.messageID != a.ID {
			continue
		}
		if a.RequestID != "-" && a.RequestID != id {
			t.Errorf("%s: request id %q, want the upstream's %q", a.ID, a.RequestID, id)
		}
		told := a.InputTokens >= 0
		if told && (a.InputTokens != e.usage.GetInputTokens() || a.OutputTokens != e.usage.GetOutputTokens()) {
			t.Errorf("%s: the client saw %d and %d tokens, %v were used", a.ID, a.InputTokens, a.OutputTokens, e.usage)
		}
		return
	}
	t.Errorf("the simulator does not know the answer %q", a.ID)
}
