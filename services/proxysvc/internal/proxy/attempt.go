package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
)

// outbound sends one call to the deployments of its plan, one after the other as
// far as the routing allows, until one answers for good.
type outbound struct {
	s       *Service
	table   *table
	plan    plan
	call    Call
	req     Request
	path    string
	dep     target // the one that is asked now
	retries int    // how often the call was sent again

	now   *attempt // nil: there was none
	first attempt
}

// attempt is one question to one deployment. Its context ends with the request's; bytes
// that come are its signs.
type attempt struct {
	waiting
	limit *time.Timer // ends it when the deployment's time is up; nil: no limit
}

// maxRetryWait is the longest pause before a retry. When the upstream asks for a
// longer one, its answer is passed on and the client waits.
const maxRetryWait = time.Minute

// send returns the answer that is to be passed on and the context of the attempt
// that brought it, or why there is none. After each attempt it asks mayGoOn,
// whose error ends it, with the answer that it threw away, if one began. The caller
// calls stop when it has read the body.
func (o *outbound) send(ctx context.Context, mayGoOn func(ctx context.Context, resp *UpstreamResponse) error) (context.Context, *UpstreamResponse, error) {
	for {
		attempt, resp, err := o.attempt(ctx)
		if refused := mayGoOn(attempt, resp); refused != nil {
			closeBody(resp)
			return attempt, nil, refused
		}
		verdict := o.judge(ctx, resp, err)
		if !verdict.retry || !o.plan.again() {
			return attempt, resp, err
		}
		failed := o.dep
		if o.choose(o.s.now()) != nil {
			return attempt, resp, err
		}
		wait := o.table.RetryAfter
		if o.dep.ID == failed.ID {
			wait = max(wait, verdict.after, backoff(o.retries))
		}
		if wait > maxRetryWait || verdict.elsewhere && o.dep.ID == failed.ID {
			o.dep = failed
			return attempt, resp, err
		}
		closeBody(resp)
		o.stop()
		o.retries++
		if !sleep(ctx, wait) {
			return ctx, nil, leash.Cause(ctx)
		}
	}
}

func closeBody(resp *UpstreamResponse) {
	if resp != nil {
		resp.Body.Close() // it is thrown away
	}
}

// choose picks the deployment of the next attempt.
func (o *outbound) choose(now time.Time) *Error {
	d, ok, until := o.plan.next(now)
	if !ok {
		return errFull(o.req.Model, until.Sub(now))
	}
	o.dep = d
	return nil
}

// attempt asks one deployment once.
func (o *outbound) attempt(ctx context.Context) (context.Context, *UpstreamResponse, error) {
	a := &o.first
	if o.now != nil {
		a = &attempt{}
	}
	ctx = o.s.silence.begin(ctx, &a.waiting)
	if d := o.timeLimit(); d > 0 {
		a.limit = time.AfterFunc(d, func() { a.life.End(errTimeout) })
	}
	o.now = a
	o.dep.health.begin(o.s.now())
	resp, err := o.s.upstream.Send(ctx, UpstreamRequest{
		Deployment: o.dep.Deployment, Path: o.path, Query: o.call.Query,
		Header: forUpstream(o.call.Header, o.call.Key), Body: o.req.ForUpstream(o.call.Body, o.dep.Model), Loan: o.call.Loan,
	})
	if cause := a.life.Cause(); err != nil && cause != nil {
		err = cause
	}
	return ctx, resp, err
}

// timeLimit is how long the deployment may take: for the first byte of a stream,
// or for a whole answer. 0: as long as it is not silent.
func (o *outbound) timeLimit() time.Duration {
	if o.req.Stream {
		for _, d := range []time.Duration{o.dep.StreamTimeout, o.table.StreamTimeout} {
			if d > 0 {
				return d
			}
		}
	}
	if o.dep.Timeout > 0 {
		return o.dep.Timeout
	}
	return o.table.Timeout
}

// alive notes that bytes of the answer arrived.
func (o *outbound) alive() {
	a := o.now
	a.signs.Add(1)
	if a.limit != nil && o.req.Stream {
		a.limit.Stop()
		a.limit = nil
	}
}

// stop ends the attempt and frees what it holds.
func (o *outbound) stop() {
	a := o.now
	if a == nil {
		return
	}
	o.s.silence.end(&a.waiting)
	if a.limit != nil {
		a.limit.Stop()
	}
	a.life.End(nil)
}

// outcome says whether an attempt may be followed by another one.
type outcome struct {
	retry     bool
	elsewhere bool          // at another deployment only
	after     time.Duration // the upstream's own wish
}

// judge notes how the deployment did.
func (o *outbound) judge(ctx context.Context, resp *UpstreamResponse, err error) outcome {
	h := o.dep.health
	switch {
	case ctx.Err() != nil:
		return outcome{} // the client left, or we stopped it
	case err == nil && resp.Status < 300:
		h.good()
		return outcome{}
	}
	now, cooldown := o.s.now(), o.table.Cooldown
	if o.dep.Cooldown > 0 {
		cooldown = o.dep.Cooldown
	}
	if err != nil {
		h.fail(o.table.AllowedFails, cooldown, now)
		return outcome{retry: true}
	}
	out := outcome{after: resp.RetryAfter, retry: resp.Header.Get("X-Should-Retry") != "false"}
	switch status := resp.Status; {
	case status == 401, status == 403:
		h.withdraw(now)
		o.s.withdrawn(*o.dep.Deployment, status)
		return outcome{retry: true, elsewhere: true}
	case status == 429:
		if out.after > 0 {
			cooldown = out.after
		}
		h.cool(min(cooldown, time.Hour), now)
		return out
	case status == 408, status >= 500:
		h.fail(o.table.AllowedFails, cooldown, now)
		return out
	case status == 409:
		return out
	}
	return outcome{} // the client's own fault
}

// backoff is the pause before the same deployment is asked again: half a second
// that doubles up to eight, of which up to a quarter is left to chance.
func backoff(retries int) time.Duration {
	d := min(500*time.Millisecond<<min(retries, 10), 8*time.Second)
	return d - rand.N(d/4) //nolint:gosec // chance, no secret
}

// sleep waits, and is false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
