package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func deployments(n int, edit func(i int, d *Deployment)) []Deployment {
	var out []Deployment
	for i := range n {
		d := Deployment{ID: fmt.Sprintf("d%d", i), ModelName: "m", Model: "m", Provider: Anthropic, Weight: 1, APIKey: secret.New(fmt.Sprint("key", i))}
		if edit != nil {
			edit(i, &d)
		}
		out = append(out, d)
	}
	return out
}

func (r *Router) firstFor(t *testing.T, session string, now time.Time) string {
	t.Helper()
	var p plan
	r.table.Load().plan(&p, "m", Anthropic, session)
	d, ok, _ := p.next(now)
	if !ok {
		return "none"
	}
	return d.ID
}

// TestWeightsAreShares counts the sessions of deployments whose weights are 1, 2,
// 7 and 0.
func TestWeightsAreShares(t *testing.T) {
	t.Parallel()
	weights := []int{1, 2, 7, 0}
	r := NewRouter(Routing{Deployments: deployments(4, func(i int, d *Deployment) { d.Weight = weights[i] })})
	counts := map[string]int{}
	for n := range 10_000 {
		counts[r.firstFor(t, fmt.Sprint("session-", n), noon)]++
	}
	for i, w := range weights {
		if got, want := counts[fmt.Sprint("d", i)], w*1000; got < want*9/10 || got > want*11/10 {
			t.Errorf("d%d with weight %d got %d of 10,000 sessions", i, w, got)
		}
	}
}

// TestADeploymentThatGoesMovesOnlyItsOwnSessions takes one of five away.
func TestADeploymentThatGoesMovesOnlyItsOwnSessions(t *testing.T) {
	t.Parallel()
	all := deployments(5, nil)
	r := NewRouter(Routing{Deployments: all})
	before := map[string]string{}
	for n := range 1000 {
		session := fmt.Sprint("session-", n)
		before[session] = r.firstFor(t, session, noon)
	}
	r.Replace(Routing{Deployments: all[:4]})
	for session, d := range before {
		if now := r.firstFor(t, session, noon); d != "d4" && now != d {
			t.Errorf("%s moved from %s to %s", session, d, now)
		}
	}
}

func TestHealthDecidesWhoIsAsked(t *testing.T) {
	t.Parallel()
	byOrder := func(i int, d *Deployment) { d.Order = i; d.RPM = 3 }
	tests := []struct {
		name string
		sick func(h []*health)
		want string
		at   time.Duration
	}{
		{"all are well", func([]*health) {}, "d0", 0},
		{"the first cools", func(h []*health) { h[0].cool(time.Second, noon) }, "d1", 0},
		{"the first has cooled", func(h []*health) { h[0].cool(time.Second, noon) }, "d0", time.Second},
		{"the first is withdrawn", func(h []*health) { h[0].withdraw(noon) }, "d1", 0},
		{"its withdrawal is over", func(h []*health) { h[0].withdraw(noon) }, "d0", withdrawal},
		{"it answered well again", func(h []*health) { h[0].withdraw(noon); h[0].good() }, "d0", 0},
		{"cooling is better than withdrawn", func(h []*health) { h[0].withdraw(noon); h[1].cool(time.Hour, noon) }, "d1", 0},
		{"all are withdrawn", func(h []*health) { h[0].withdraw(noon); h[1].withdraw(noon) }, "d0", 0},
		{"the first is full", func(h []*health) { h[0].requests, h[0].minute = 3, noon }, "d1", 0},
		{"its minute is over", func(h []*health) { h[0].requests, h[0].minute = 3, noon }, "d0", time.Minute},
		{"all are full", func(h []*health) {
			h[0].requests, h[0].minute, h[1].requests, h[1].minute = 3, noon, 3, noon
		}, "none", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := NewRouter(Routing{Deployments: deployments(2, byOrder)})
			var hs []*health
			for _, d := range r.table.Load().exact["m"] {
				hs = append(hs, d.health)
			}
			tt.sick(hs)
			if got := r.firstFor(t, "s", noon.Add(tt.at)); got != tt.want {
				t.Errorf("asked %s, want %s", got, tt.want)
			}
		})
	}
}

func TestHealthOutlivesAReplacedRouting(t *testing.T) {
	t.Parallel()
	ds := deployments(2, func(i int, d *Deployment) { d.Order = i })
	r := NewRouter(Routing{Deployments: ds})
	r.table.Load().exact["m"][0].health.withdraw(noon)
	r.Replace(Routing{Deployments: ds, NumRetries: 2})
	if got := r.firstFor(t, "s", noon); got != "d1" {
		t.Errorf("asked %s, the first is still withdrawn", got)
	}
	ds = deployments(2, func(i int, d *Deployment) { d.Order = i; d.APIKey = secret.New("another key") })
	r.Replace(Routing{Deployments: ds})
	if got := r.firstFor(t, "s", noon); got != "d0" {
		t.Errorf("asked %s, the first has another key", got)
	}
}

// TestEveryPlanEnds runs plans of random routings to their ends: none tries more
// often than its settings allow, and the least tried deployment comes first.
func TestEveryPlanEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		retries := r.IntN(4)
		names := []string{"m", "f1", "f2"}
		ds := deployments(6, func(i int, d *Deployment) { d.ModelName = names[i%3]; d.Order = r.IntN(2); d.Weight = r.IntN(3) })
		router := NewRouter(Routing{Deployments: ds, NumRetries: retries, Fallbacks: map[string][]string{"m": {"f1", "f2"}}})
		var p plan
		router.table.Load().plan(&p, "m", Anthropic, fmt.Sprint(seed))
		tries := map[string]int{}
		total := 0
		for {
			d, ok, _ := p.next(noon)
			if !ok {
				t.Fatal("nobody could be asked")
			}
			tries[d.ID]++
			if total++; !p.again() {
				break
			}
		}
		if want := 3 * (1 + retries); total != want {
			t.Fatalf("seed %d: %d tries, want %d", seed, total, want)
		}
		for id, n := range tries {
			if n > (retries+2)/2 {
				t.Errorf("seed %d: %s was asked %d times of %d", seed, id, n, total)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	table := newTable(Routing{
		Deployments: []Deployment{
			{ID: "exact", ModelName: "claude-x", Model: "claude-x", Provider: Anthropic},
			{ID: "prefixed", ModelName: "anthropic/claude-y", Model: "claude-y", Provider: Anthropic},
			{ID: "wild", ModelName: "claude-*", Model: "claude-*", Provider: Anthropic},
			{ID: "any", ModelName: "*", Model: "*", Provider: OpenAI},
		},
		Aliases: map[string]string{"best": "claude-x"},
	}, nil)
	names := []struct {
		sent     string
		provider Provider
		id       string
		model    string
	}{
		{"claude-x", Anthropic, "exact", "claude-x"},
		{"anthropic/claude-x", Anthropic, "exact", "claude-x"},
		{"claude-y", Anthropic, "prefixed", "claude-y"},
		{"anthropic/claude-y", Anthropic, "prefixed", "claude-y"},
		{"claude-z", Anthropic, "wild", "claude-z"},
		{"anthropic/claude-z", Anthropic, "wild", "claude-z"},
		{"claude-zz", Anthropic, "wild", "claude-zz"}, // whatever the wildcard stood for before
		{"best", Anthropic, "exact", "claude-x"},
		{"gpt-5", OpenAI, "any", "gpt-5"},
		{"openai/gpt-5", OpenAI, "any", "gpt-5"},
		{"gpt-5", Anthropic, "", ""},
		{"claude-", Anthropic, "", ""},
	}
	for _, tt := range slices.Concat(names, names) { // what was found is found again
		ts := table.targets(tt.sent, tt.provider)
		if len(ts) == 0 {
			if tt.id != "" {
				t.Errorf("%s has no route", tt.sent)
			}
			continue
		}
		if ts[0].ID != tt.id || ts[0].Model != tt.model {
			t.Errorf("%s goes to %s as %s, want %s as %s", tt.sent, ts[0].ID, ts[0].Model, tt.id, tt.model)
		}
	}
}

// TestNamesThatAreAskedForAreBounded asks for more names than are remembered, and for a
// long one.
func TestNamesThatAreAskedForAreBounded(t *testing.T) {
	t.Parallel()
	table := newTable(Routing{Deployments: []Deployment{{ID: "wild", ModelName: "claude-*", Provider: Anthropic, Model: "claude-*"}}}, nil)
	for i := range 2 * maxFound {
		name := "claude-" + strconv.Itoa(i)
		if ts := table.targets(name, Anthropic); len(ts) != 1 || ts[0].Model != name {
			t.Fatalf("%s goes to %v", name, ts)
		}
	}
	long := "claude-" + strings.Repeat("x", longestShown)
	if ts := table.targets(long, Anthropic); len(ts) != 1 || ts[0].Model != long {
		t.Error("a long name has no route")
	}
	if _, kept := table.found[asked{long, Anthropic}]; kept || len(table.found) > maxFound || len(table.found) == 0 {
		t.Errorf("%d names are remembered, want %d at most; the long one: %t", len(table.found), maxFound, kept)
	}
}

func testKey() secret.String { return secret.New("sk-virtual") }
