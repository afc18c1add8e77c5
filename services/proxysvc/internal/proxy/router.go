package proxy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Router finds the deployments for a model name. Its routing can be replaced
// while requests run: each keeps the one that it began with.
type Router struct {
	table   atomic.Pointer[table]
	replace sync.Mutex
}

// table is a routing, ready for look-ups.
type table struct {
	Routing
	exact     map[string][]target
	wildcards []wildcard // longest prefix first
	names     []string   // in the order of the configuration
	health    map[string]*health

	mu    sync.Mutex
	found map[asked][]target // what was asked for before
}

// asked is a name of a model, and whose API it was asked for by.
type asked struct {
	model    string
	provider Provider
}

// maxFound bounds found: clients may ask for any name.
const maxFound = 1000

type wildcard struct {
	prefix  string
	targets []target
}

// target is a deployment, which never changes, and how it does.
type target struct {
	*Deployment
	health *health
}

// NewRouter makes a router.
func NewRouter(r Routing) *Router {
	router := &Router{}
	router.Replace(r)
	return router
}

// Replace puts another routing in place. A deployment whose settings are the
// same keeps its health.
func (r *Router) Replace(routing Routing) {
	r.replace.Lock()
	defer r.replace.Unlock()
	var before map[string]*health
	if old := r.table.Load(); old != nil {
		before = old.health
	}
	r.table.Store(newTable(routing, before))
}

func newTable(routing Routing, before map[string]*health) *table {
	t := &table{Routing: routing, exact: map[string][]target{}, health: map[string]*health{}, found: map[asked][]target{}}
	for _, d := range routing.Deployments {
		h := before[identity(d)]
		if h == nil {
			h = &health{}
		}
		t.health[identity(d)] = h
		t.add(target{&d, h})
	}
	slices.SortStableFunc(t.wildcards, func(a, b wildcard) int { return len(b.prefix) - len(a.prefix) })
	return t
}

func (t *table) add(d target) {
	prefix, wild := strings.CutSuffix(d.ModelName, "*")
	if !wild {
		if t.exact[d.ModelName] == nil {
			t.names = append(t.names, d.ModelName)
		}
		t.exact[d.ModelName] = append(t.exact[d.ModelName], d)
		return
	}
	i := slices.IndexFunc(t.wildcards, func(w wildcard) bool { return w.prefix == prefix })
	if i < 0 {
		t.wildcards = append(t.wildcards, wildcard{prefix: prefix})
		i = len(t.wildcards) - 1
	}
	t.wildcards[i].targets = append(t.wildcards[i].targets, d)
}

// identity is what a deployment's health belongs to: it and its real key.
func identity(d Deployment) string {
	sum := sha256.Sum256([]byte(d.APIBase + "\n" + d.APIKey.Reveal()))
	return d.ID + "\n" + string(sum[:])
}

// targets are the deployments behind a name. The bare name and the one with a
// provider prefix ("anthropic/") are the same; an exact name wins over a
// wildcard.
func (t *table) targets(model string, provider Provider) []target {
	of := asked{model, provider}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ts, ok := t.found[of]; ok {
		return ts
	}
	ts := t.find(of)
	if len(ts) > 0 && len(model) <= longestShown {
		if len(t.found) >= maxFound {
			clear(t.found)
		}
		t.found[of] = ts
	}
	return ts
}

func (t *table) find(of asked) []target {
	model := of.model
	if alias, ok := t.Aliases[model]; ok {
		model = alias
	}
	prefix := string(of.provider) + "/"
	bare := strings.TrimPrefix(model, prefix)
	names := []string{model, bare, prefix + bare}
	for _, name := range names {
		if ts := speaking(of.provider, t.exact[name]); len(ts) > 0 {
			return ts
		}
	}
	for _, w := range t.wildcards {
		for _, name := range names {
			rest, ok := strings.CutPrefix(name, w.prefix)
			if !ok || rest == "" {
				continue
			}
			if ts := speaking(of.provider, w.targets); len(ts) > 0 {
				return matched(ts, rest)
			}
		}
	}
	return nil
}

func speaking(provider Provider, ts []target) []target {
	if !slices.ContainsFunc(ts, func(d target) bool { return d.Provider != provider }) {
		return ts
	}
	return slices.DeleteFunc(slices.Clone(ts), func(d target) bool { return d.Provider != provider })
}

// matched puts what a wildcard stood for into the deployments' models.
func matched(ts []target, rest string) []target {
	out := slices.Clone(ts)
	for i := range out {
		if prefix, ok := strings.CutSuffix(out[i].Model, "*"); ok {
			d := *out[i].Deployment
			d.Model = strings.TrimPrefix(prefix+rest, string(d.Provider)+"/")
			out[i].Deployment = &d
		}
	}
	return out
}

// preferred sorts deployments as a session prefers them: by order, and within
// one by weighted rendezvous hashing, so that a session stays where its prompt
// cache is warm, shares follow the weights, and a deployment that goes or comes
// moves no other session than its own.
func preferred(ts []target, session string) []target {
	if len(ts) == 1 {
		return ts
	}
	out := slices.Clone(ts)
	scores := make(map[string]float64, len(out))
	for _, d := range out {
		scores[d.ID] = score(d, session)
	}
	slices.SortStableFunc(out, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(scores[b.ID], scores[a.ID]))
	})
	return out
}

func score(d target, session string) float64 {
	if d.Weight <= 0 {
		return math.Inf(-1)
	}
	sum := sha256.Sum256([]byte(session + "\n" + d.ID))
	u := float64(binary.BigEndian.Uint64(sum[:])>>11+1) / (1<<53 + 1) // in (0, 1)
	return -float64(d.Weight) / math.Log(u)
}

// holder finds the deployment of an id among those of a plan.
func (p *plan) holder(id string) (target, bool) {
	for d := range p.all {
		if d.ID == id {
			return *d, true
		}
	}
	return target{}, false
}

// Conditions counts the deployments by condition.
func (r *Router) Conditions(now time.Time) map[Condition]int {
	counts := map[Condition]int{}
	t := r.table.Load()
	for _, d := range t.Deployments {
		c, _ := t.health[identity(d)].condition(&d, now)
		counts[c]++
	}
	return counts
}

// mayUse says whether a key's lists allow a model. An empty list allows all;
// so do LiteLLM's words for that.
func (k *Key) mayUse(model string) bool {
	return allows(k.Models, model) && allows(k.TeamModels, model)
}

func allows(list []string, model string) bool {
	if len(list) == 0 {
		return true
	}
	bare := bareName(model)
	for _, allowed := range list {
		if allowed == "all-team-models" || allowed == "all-proxy-models" {
			return true
		}
		prefix, wild := strings.CutSuffix(bareName(allowed), "*")
		if wild && strings.HasPrefix(bare, prefix) || !wild && bare == prefix {
			return true
		}
	}
	return false
}

// bareName is a model's name without its provider.
func bareName(model string) string {
	for _, p := range []Provider{Anthropic, OpenAI} {
		if bare, ok := strings.CutPrefix(model, string(p)+"/"); ok {
			return bare
		}
	}
	return model
}
