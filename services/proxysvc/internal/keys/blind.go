package keys

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// recheck ends what runs with keys or teams that were stopped before the watch
// began at a revision.
func (c *Client) recheck(ctx context.Context, revision int64) error {
	for _, k := range c.runs.From(revision) {
		if err := c.confirm(ctx, k, revision); err != nil {
			return err
		}
	}
	return nil
}

// confirm has keysvc say that a key which runs may go on, or ends what runs with
// it. It fails when keysvc cannot say.
func (c *Client) confirm(ctx context.Context, k *proxy.Key, revision int64) error {
	is, err := c.ask(ctx, k.Token)
	switch {
	case fault.KindOf(err) == fault.Unauthenticated:
		c.runs.End([]string{k.KeyID}, nil, revision, proxy.Revoked)
	case err != nil:
		return err
	case !is.Gate.Open():
		c.runs.End(nil, []string{k.TeamID}, revision, is.Gate.Status)
	default:
		c.remember(k.Token, is)
	}
	return nil
}

// whileBlind looks after what runs while the watch shows no life and nobody tells
// of stops, until ctx ends.
func (c *Client) whileBlind(ctx context.Context) {
	tick := time.NewTicker(c.set.Recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.blind() {
			c.lookAfter(ctx)
		}
	}
}

// lookAfter has every key confirmed that runs. When keysvc cannot say, those end
// whose window is over, and those whose life is.
func (c *Client) lookAfter(ctx context.Context) {
	reachable := true
	for _, k := range c.runs.Keys() {
		reachable = reachable && c.confirm(ctx, k, c.seen()) == nil
		switch {
		case reachable || ctx.Err() != nil:
		case !k.ExpiresAt.IsZero() && !c.now().Before(k.ExpiresAt):
			c.runs.End([]string{k.KeyID}, nil, c.seen(), proxy.Revoked)
		case c.blind() && !c.within(k.Token):
			// It may come again as soon as keysvc can say.
			c.runs.End([]string{k.KeyID}, nil, 0, proxy.Unverified)
		}
	}
}

// blind says whether the watch shows no life.
func (c *Client) blind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Sub(c.alive) >= c.set.Trust
}

// within says whether a key was known to be good recently enough to work without
// keysvc.
func (c *Client) within(token string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	good := c.alive
	if at := c.byToken[token].verifiedAt; at.After(good) {
		good = at
	}
	return c.now().Sub(good) < c.set.Outage
}
