// Package keys verifies virtual keys at keysvc. Verified keys stay in memory and
// are trusted only while the watch of changes is alive; without it every request
// is verified anew.
package keys

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Settings of a Client.
type Settings struct {
	// SoftBudgets is how budgets are held that do not say so themselves.
	SoftBudgets bool
	// Trust is how old the last sign of life of the watch may be for a key in
	// memory to be taken without a question.
	Trust time.Duration
	// Outage is how long a key goes on working when keysvc cannot be reached, from
	// when it was last known to be good: by its verification, or by a watch that
	// was alive and told of no change.
	Outage time.Duration
	// Timeout bounds one verification.
	Timeout time.Duration
	// Retry is the pause before a broken watch is opened again, and Recheck that
	// between two looks at what runs while there is none.
	Retry, Recheck time.Duration
}

// Client verifies keys and follows their changes.
type Client struct {
	api  keysv1.KeyServiceClient
	set  Settings
	runs Running
	note func(what string, err error)
	now  func() time.Time

	ready     chan struct{} // closed at the first sign of life of the watch
	readyOnce sync.Once

	mu       sync.Mutex
	byToken  map[string]entry
	changes  changes              // of which byToken may have older ones still
	unknown  map[string]time.Time // tokens that are no key, and when that was said
	revision int64                // newest one that the watch has shown
	alive    time.Time            // last sign of life of the watch
}

type entry struct {
	key        *proxy.Key
	verifiedAt time.Time
}

// maxKeys bounds the memory of verified keys; beyond it arbitrary ones go.
const maxKeys = 200_000

// Running is what the client ends when a key or team was stopped.
type Running interface {
	// Stop ends the requests of keys and teams that were stopped at a revision and
	// whose key was verified before it; End ends all of them.
	Stop(keyIDs, teamIDs []string, revision int64, reason string)
	End(keyIDs, teamIDs []string, revision int64, reason string)
	// From tells that the watch begins anew at a revision: what was verified
	// before it may not begin any more. It returns the keys of what has begun.
	From(revision int64) []*proxy.Key
	// Keys are those of what runs, each once.
	Keys() []*proxy.Key
}

// New makes a client. note is told of trouble with the watch.
func New(api keysv1.KeyServiceClient, set Settings, runs Running, note func(what string, err error)) *Client {
	return &Client{api: api, set: set, runs: runs, note: note, now: time.Now, ready: make(chan struct{}), byToken: map[string]entry{}, unknown: map[string]time.Time{}}
}

var _ proxy.Keys = (*Client)(nil)

// Verify finds out what a key may do. Unauthenticated when it is no live key,
// Unavailable when keysvc cannot say and the key was not verified recently.
func (c *Client) Verify(ctx context.Context, key secret.String) (*proxy.Key, error) {
	token := virtualkey.Token(key.Reveal())
	known, trusted := c.known(token)
	switch {
	case trusted && known.key != nil:
		return known.key, nil
	case trusted, !virtualkey.Valid(key.Reveal()):
		return nil, errUnknown
	}
	before := c.seen()
	k, err := c.ask(ctx, token)
	switch {
	case err == nil:
		c.remember(token, k)
	case fault.KindOf(err) == fault.Unauthenticated:
		c.forget(token, before)
	case known.key != nil && c.within(token):
		return known.key, nil
	}
	return k, err
}

// ask has keysvc verify a token. Unauthenticated when it is no live key,
// Unavailable when keysvc cannot say.
func (c *Client) ask(ctx context.Context, token string) (*proxy.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, c.set.Timeout)
	defer cancel()
	var trailer metadata.MD
	resp, err := c.api.VerifyKey(ctx, &keysv1.VerifyKeyRequest{Token: token}, grpc.Trailer(&trailer))
	// With a challenge it is our own service token that keysvc does not take.
	aboutUs := len(trailer.Get("www-authenticate")) > 0
	switch {
	case err == nil:
		return c.set.fromWire(resp), nil
	case status.Code(err) == codes.Unauthenticated && !aboutUs:
		return nil, errUnknown
	default:
		return nil, fault.Wrap(fault.Unavailable, err, "the key service cannot be reached; try again")
	}
}

var errUnknown = fault.Errorf(fault.Unauthenticated, "invalid api key")

// known is what is remembered of a token. An entry without a key is of one that
// is no key.
func (c *Client) known(token string) (e entry, trusted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trusted = c.now().Sub(c.alive) < c.set.Trust
	if e, ok := c.byToken[token]; ok && !c.changes.stale(e.key) {
		return e, trusted
	}
	if at, ok := c.unknown[token]; ok {
		return entry{}, trusted && c.now().Sub(at) < unknownFor
	}
	return entry{}, false
}

// unknownFor is how long a token that is no key is taken for one without asking
// again, and maxUnknown how many are: they are kept apart, so that a flood of them
// pushes no key out. Any change of keys makes all of them go, since it may be
// that one was unblocked.
const (
	unknownFor = 10 * time.Second
	maxUnknown = 50_000
)

// remember keeps a verified key, unless the watch has meanwhile shown a newer
// change, which may have been this key's.
func (c *Client) remember(token string, k *proxy.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.Revision < c.revision {
		return
	}
	for t := range c.byToken {
		if len(c.byToken) < maxKeys {
			break
		}
		delete(c.byToken, t)
	}
	if token == k.Token { // else it is an old secret's, in its grace
		token = k.Token // the same text, and the other one goes
	}
	c.byToken[token] = entry{k, c.now()}
}

func (c *Client) seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// forget drops a token that is no key, and remembers that, unless something has
// changed since it was asked.
func (c *Client) forget(token string, before int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byToken, token)
	if c.revision != before {
		return
	}
	if len(c.unknown) >= maxUnknown {
		clear(c.unknown)
	}
	c.unknown[token] = c.now()
}

// Ready is closed when the watch has shown life once.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Run follows the changes until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	var blind sync.WaitGroup
	defer blind.Wait()
	blind.Go(func() { c.whileBlind(ctx) })
	for ctx.Err() == nil {
		err := c.watch(ctx)
		if err != nil && ctx.Err() == nil {
			c.note("watch keys", err)
		}
		if status.Code(err) == codes.FailedPrecondition {
			// keysvc has seen less than we have: its database was restored.
			// Nothing that we know is certain any more.
			c.reset()
		}
		select {
		case <-time.After(c.set.Retry):
		case <-ctx.Done():
		}
	}
	return nil
}

// reset forgets everything and watches from now on.
func (c *Client) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byToken)
	clear(c.unknown)
	c.revision, c.alive = 0, time.Time{}
}

func (c *Client) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	after := c.revision
	c.mu.Unlock()
	stream, err := c.api.WatchKeys(ctx, &keysv1.WatchKeysRequest{AfterRevision: after})
	if err != nil {
		return err
	}
	// A watch from now on tells nothing of the time before its first message: what
	// is known goes, and what runs is verified again, or the watch begins once more.
	for fresh := after == 0; ; fresh = false {
		// A stream that hangs without an error must not be waited for.
		silence := time.AfterFunc(c.set.Trust, cancel)
		m, err := stream.Recv()
		silence.Stop()
		if err != nil {
			return err
		}
		c.apply(m, fresh)
		if !fresh {
			continue
		}
		if err := c.recheck(ctx, m.GetRevision()); err != nil {
			c.reset()
			return err
		}
	}
}

// apply takes a change in: what is cached of it goes first, then its running
// requests end. The first message of a fresh watch makes everything go.
func (c *Client) apply(m *keysv1.WatchKeysResponse, fresh bool) {
	c.advance(m, fresh)
	c.readyOnce.Do(func() { close(c.ready) })
	if m.GetStopped() {
		c.runs.Stop(m.GetKeyIds(), m.GetTeamIds(), m.GetRevision(), m.GetReason())
	}
}

// advance forgets and moves on in one step, so that remember sees either the old
// revision, and what it keeps is forgotten here, or the new one.
func (c *Client) advance(m *keysv1.WatchKeysResponse, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh || len(m.GetKeyIds())+len(m.GetTeamIds()) > 0 {
		c.changes.add(m)
		c.changes.sweep(c.byToken, fresh)
		clear(c.unknown)
	}
	c.revision, c.alive = max(c.revision, m.GetRevision()), c.now()
}
