package keys

import (
	"maps"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// changes are the newest changes of keys and teams, by revision: a key that was verified
// before one of its own, or of its team, is not known any more. So a change costs the
// same however many keys are in memory; they are only looked through once in as
// many.
type changes struct{ keys, teams map[string]int64 }

// fewChanges are taken in, and as many as there are keys in memory, before these are
// looked through.
const fewChanges = 1000

func (c *changes) add(m *keysv1.WatchKeysResponse) {
	if c.keys == nil {
		c.keys, c.teams = map[string]int64{}, map[string]int64{}
	}
	for _, id := range m.GetKeyIds() {
		c.keys[id] = m.GetRevision()
	}
	for _, id := range m.GetTeamIds() {
		c.teams[id] = m.GetRevision()
	}
}

// stale says whether a key was verified before a change of it.
func (c *changes) stale(k *proxy.Key) bool {
	return k.Revision < c.keys[k.KeyID] || k.TeamID != "" && k.Revision < c.teams[k.TeamID]
}

// sweep has what is stale go when there are many changes, or all of it.
func (c *changes) sweep(byToken map[string]entry, all bool) {
	if !all && len(c.keys)+len(c.teams) < max(fewChanges, len(byToken)) {
		return
	}
	maps.DeleteFunc(byToken, func(_ string, e entry) bool { return all || c.stale(e.key) })
	clear(c.keys)
	clear(c.teams)
}
