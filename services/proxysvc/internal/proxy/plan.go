package proxy

import (
	"time"
)

// plan is where a request may go, in which order, and how often it may be sent
// again.
type plan struct {
	groups  []group
	first   [1]group       // room for groups where there is no fallback
	at      int            // the group that is tried now
	retries int            // left in it
	tries   map[string]int // by deployment, of groups that have several
}

// group is one model name's deployments, as the session prefers them.
type group struct {
	targets []target
	retries int
}

// maxFallbacks bounds how many names are tried after the one that was asked for.
const maxFallbacks = 5

// plan finds where a request for a model may go; false when no deployment serves
// the name.
func (t *table) plan(p *plan, model string, provider Provider, session string) bool {
	ts := t.targets(model, provider)
	if len(ts) == 0 {
		return false
	}
	p.groups = append(p.first[:0], t.group(ts, session))
	fallbacks, own := t.Fallbacks[model]
	if !own {
		if fallbacks, own = t.Fallbacks[bareName(model)]; !own {
			fallbacks = t.Fallbacks["*"]
		}
	}
	for _, name := range fallbacks[:min(len(fallbacks), maxFallbacks)] {
		if ts := t.targets(name, provider); len(ts) > 0 && name != model {
			p.groups = append(p.groups, t.group(ts, session))
		}
	}
	p.retries = p.groups[0].retries
	return true
}

func (t *table) group(ts []target, session string) group {
	g := group{targets: preferred(ts, session), retries: t.NumRetries}
	if n := g.targets[0].MaxRetries; n != nil {
		g.retries = *n
	}
	return g
}

// only leaves a single deployment: the one that holds a conversation.
func (p *plan) only(d target) {
	p.groups = []group{{targets: []target{d}, retries: p.groups[0].retries}}
}

// next picks the fittest deployment of the group that has been tried least, in
// the session's order. What is cooling or withdrawn is used when nothing better
// is left: then the upstream's own answer is the truth. When all are full it
// picks none and says until when.
func (p *plan) next(now time.Time) (d target, ok bool, until time.Time) {
	best, tries := Full, 0
	candidates := p.groups[p.at].targets
	for i := range candidates {
		candidate := &candidates[i]
		c, free := candidate.health.condition(candidate.Deployment, now)
		if c == Full {
			if until.IsZero() || free.Before(until) {
				until = free
			}
			continue
		}
		if n := p.tries[candidate.ID]; c < best || c == best && n < tries {
			d, ok, best, tries = *candidate, true, c, n
		}
	}
	if ok && len(candidates) > 1 {
		if p.tries == nil {
			p.tries = map[string]int{}
		}
		p.tries[d.ID]++
	}
	return d, ok, until
}

// again says whether a request that failed may be sent once more. It moves to
// the next name when the retries of this one are used up.
func (p *plan) again() bool {
	if p.retries > 0 {
		p.retries--
		return true
	}
	if p.at+1 < len(p.groups) {
		p.at++
		p.retries = p.groups[p.at].retries
		return true
	}
	return false
}

// all are the deployments that the request may come to.
func (p *plan) all(yield func(*target) bool) {
	for _, g := range p.groups {
		for i := range g.targets {
			if !yield(&g.targets[i]) {
				return
			}
		}
	}
}
