// Package keys verifies virtual keys at keysvc. Verified keys stay in memory and
// are trusted only while the watch of changes is alive; without it every request
// is verified anew.
package keys

import (
	"context"
	"maps"
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
	// Trust is how old the last sign of life of the watch may be for a key in
	// memory to be taken without a question.
	Trust time.Duration
	// Outage is how long after its last verification a key goes on working when
	// keysvc cannot be reached.
	Outage time.Duration
	// Timeout bounds one verification.
	Timeout time.Duration
	// Retry is the pause before a broken watch is opened again.
	Retry time.Duration
}

// Client verifies keys and follows their changes.
type Client struct {
	api  keysv1.KeyServiceClient
	set  Settings
	stop func(keyIDs, teamIDs []string, revision int64, reason string)
	note func(what string, err error)
	now  func() time.Time

	ready     chan struct{} // closed at the first sign of life of the watch
	readyOnce sync.Once

	mu       sync.Mutex
	byToken  map[string]entry
	revision int64     // newest one that the watch has shown
	alive    time.Time // last sign of life of the watch
}

type entry struct {
	key        *proxy.Key
	verifiedAt time.Time
}

// maxKeys bounds the memory of verified keys; beyond it arbitrary ones go.
const maxKeys = 200_000

// New makes a client. stop is called for every key or team that was stopped;
// note is told of trouble with the watch.
func New(api keysv1.KeyServiceClient, set Settings,
	stop func(keyIDs, teamIDs []string, revision int64, reason string), note func(what string, err error),
) *Client {
	return &Client{api: api, set: set, stop: stop, note: note, now: time.Now, ready: make(chan struct{}), byToken: map[string]entry{}}
}

var _ proxy.Keys = (*Client)(nil)

// Verify finds out what a key may do. Unauthenticated when it is no live key,
// Unavailable when keysvc cannot say and the key was not verified recently.
func (c *Client) Verify(ctx context.Context, key secret.String) (*proxy.Key, error) {
	if !virtualkey.Valid(key.Reveal()) {
		return nil, errUnknown
	}
	token := virtualkey.Token(key.Reveal())
	known, trusted := c.known(token)
	if trusted {
		return known.key, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.set.Timeout)
	defer cancel()
	var trailer metadata.MD
	resp, err := c.api.VerifyKey(ctx, &keysv1.VerifyKeyRequest{Token: token}, grpc.Trailer(&trailer))
	// With a challenge it is our own service token that keysvc does not take.
	aboutUs := len(trailer.Get("www-authenticate")) > 0
	switch {
	case err == nil:
		k := fromWire(resp)
		c.remember(token, k)
		return k, nil
	case status.Code(err) == codes.Unauthenticated && !aboutUs:
		c.forget(token)
		return nil, errUnknown
	default:
		if known.key != nil && c.now().Sub(known.verifiedAt) < c.set.Outage {
			return known.key, nil
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the key service cannot be reached; try again")
	}
}

var errUnknown = fault.Errorf(fault.Unauthenticated, "invalid api key")

func (c *Client) known(token string) (e entry, trusted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byToken[token]
	return e, ok && c.now().Sub(c.alive) < c.set.Trust
}

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
	c.byToken[token] = entry{k, c.now()}
}

func (c *Client) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byToken, token)
}

// Ready is closed when the watch has shown life once.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Run follows the changes until ctx ends.
func (c *Client) Run(ctx context.Context) error {
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
	// A watch from now on tells nothing of the time before its first message.
	for fresh := after == 0; ; fresh = false {
		// A stream that hangs without an error must not be waited for.
		silence := time.AfterFunc(c.set.Trust, cancel)
		m, err := stream.Recv()
		silence.Stop()
		if err != nil {
			return err
		}
		c.apply(m, fresh)
	}
}

// apply takes a change in: what is cached of it goes first, then its running
// requests end. The first message of a fresh watch makes everything go.
func (c *Client) apply(m *keysv1.WatchKeysResponse, fresh bool) {
	c.advance(m, fresh)
	c.readyOnce.Do(func() { close(c.ready) })
	if m.GetStopped() {
		c.stop(m.GetKeyIds(), m.GetTeamIds(), m.GetRevision(), m.GetReason())
	}
}

// advance forgets and moves on in one step, so that remember sees either the old
// revision, and what it keeps is forgotten here, or the new one.
func (c *Client) advance(m *keysv1.WatchKeysResponse, fresh bool) {
	keys, teams := setOf(m.GetKeyIds()), setOf(m.GetTeamIds())
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh || len(keys)+len(teams) > 0 {
		maps.DeleteFunc(c.byToken, func(_ string, e entry) bool {
			return fresh || keys[e.key.KeyID] || e.key.TeamID != "" && teams[e.key.TeamID]
		})
	}
	c.revision, c.alive = max(c.revision, m.GetRevision()), c.now()
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}
