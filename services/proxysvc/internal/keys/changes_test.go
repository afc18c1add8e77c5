package keys

import (
	"fmt"
	"strconv"
	"testing"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// TestAChangeMakesItsKeysUnknown takes in more changes than are kept, of keys and of
// teams: what was verified before its change is not known, what was verified after it,
// or has none, is.
func TestAChangeMakesItsKeysUnknown(t *testing.T) {
	t.Parallel()
	c := New(nil, Settings{}, nil, nil)
	remember := func(n int, revision int64) {
		k := &proxy.Key{KeyID: fmt.Sprint("key_", n), Token: strconv.Itoa(n), Revision: revision}
		if n%2 == 0 {
			k.TeamID = fmt.Sprint("team_", n)
		}
		c.remember(k.Token, k)
	}
	const keys = 3 * fewChanges // more than are taken in at once
	for n := range keys {
		remember(n, 0)
	}
	known := func(n int) bool {
		e, _ := c.known(strconv.Itoa(n))
		return e.key != nil
	}
	const changed = keys - fewChanges/2
	for n := range changed {
		change := &keysv1.WatchKeysResponse{Revision: int64(n + 1)}
		if n%2 == 0 {
			change.TeamIds = []string{fmt.Sprint("team_", n)}
		} else {
			change.KeyIds = []string{fmt.Sprint("key_", n)}
		}
		c.apply(change, false)
		if known(n) {
			t.Fatalf("key %d is known after its change", n)
		}
		if n%3 == 0 { // the newest one, verified again
			remember(n, int64(n+1))
		}
	}
	for n := range keys {
		if want := n >= changed || n%3 == 0; known(n) != want {
			t.Fatalf("key %d is known: %t, want %t", n, known(n), want)
		}
	}
	for n := range keys { // of nothing that is here: until all is looked through
		c.apply(&keysv1.WatchKeysResponse{Revision: changed, KeyIds: []string{fmt.Sprint("gone_", n)}}, false)
	}
	if n := len(c.byToken); n != keys-changed+(changed+2)/3 {
		t.Errorf("%d keys are in memory: those that are not known stay for ever", n)
	}
	c.apply(&keysv1.WatchKeysResponse{Revision: keys}, true)
	if n := len(c.byToken); n != 0 {
		t.Errorf("%d keys are known when the watch began anew", n)
	}
}

// BenchmarkAChange takes in a change while many keys are in memory.
func BenchmarkAChange(b *testing.B) {
	for _, keys := range []int{20, 20_000, 200_000} {
		b.Run(strconv.Itoa(keys), func(b *testing.B) {
			c := New(nil, Settings{}, nil, nil)
			for n := range keys {
				k := &proxy.Key{KeyID: fmt.Sprint("key_", n), TeamID: fmt.Sprint("team_", n%1000), Token: strconv.Itoa(n)}
				c.remember(k.Token, k)
			}
			for n := int64(1); b.Loop(); n++ {
				c.apply(&keysv1.WatchKeysResponse{Revision: n, KeyIds: []string{fmt.Sprint("gone_", n)}}, false)
			}
		})
	}
}
