package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// run is one request on its way.
type run struct {
	s       *Service
	call    Call
	key     *Key
	req     Request
	dep     Deployment
	admit   ledger.Admission
	ticket  *ledger.Ticket
	idle    *time.Timer // cancels the request when the upstream is silent
	meter   Meter
	encoded bool // the answer is compressed against our wish: it cannot be metered
	cancel  context.CancelCauseFunc
	outcome ledger.Settlement // filled in on the way
}

// CreateMessage runs one Messages request. It returns an *Error while nothing
// has been sent to the client, ErrCut when the connection must be dropped, the
// sink's error when the client is gone, and nil when the answer has ended
// properly.
func (s *Service) CreateMessage(ctx context.Context, c Call, sink Sink) error {
	r, err := s.prepare(ctx, c)
	if err != nil {
		return err
	}
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	remove, stopped := s.running.Add(r.key, r.cancel)
	if stopped != nil {
		return stopped
	}
	defer remove()
	return r.do(ctx, sink)
}

// prepare does everything that needs no upstream and no ledger.
func (s *Service) prepare(ctx context.Context, c Call) (*run, error) {
	key, err := s.authenticate(ctx, c)
	if err != nil {
		return nil, err
	}
	if key.Gate.Status != "" && key.Gate.Status != "active" {
		return nil, errGate(key.Gate)
	}
	req, dep, err := s.route(key, c.Body)
	if err != nil {
		return nil, err
	}
	now := s.now()
	hold, err := s.book.WorstCost(dep.Model, bound(req, c.Body), now)
	if err != nil {
		return nil, errModel(req.Model) // no price: never free
	}
	r := &run{s: s, call: c, key: key, req: req, dep: dep}
	r.admit = ledger.Admission{
		Request: ledger.Request{
			RequestID: c.RequestID, KeyID: key.KeyID, Token: key.Token, TeamID: key.TeamID, UserID: key.UserID,
			ModelGroup: req.Model, Model: dep.Model, ModelID: dep.ID, PriceVersion: s.book.Version,
			Stream: req.Stream, StartedAt: now, Tags: key.Tags, UserAgent: c.Header.Get("User-Agent"),
		},
		Hold: hold, KeyLimits: key.Limits, TeamLimits: key.TeamLimits,
	}
	return r, nil
}

// authenticate verifies the call's key. A key that is no live one gets the same
// answer whatever the cause; a key store that is down is never a bad key.
func (s *Service) authenticate(ctx context.Context, c Call) (*Key, error) {
	if c.Key.Empty() {
		return nil, errKey()
	}
	key, err := s.keys.Verify(ctx, c.Key)
	switch {
	case fault.KindOf(err) == fault.Unauthenticated:
		return nil, errKey()
	case err != nil:
		return nil, errOverloaded(err)
	case !key.ExpiresAt.IsZero() && !s.now().Before(key.ExpiresAt):
		return nil, errKey()
	}
	return key, nil
}

func (s *Service) route(key *Key, body []byte) (Request, Deployment, error) {
	req, bad := Scan(body)
	if bad != nil {
		return req, Deployment{}, bad
	}
	dep, ok := s.router.Route(req.Model, key.session())
	if !ok {
		return req, dep, errModel(req.Model)
	}
	if !key.mayUse(req.Model) {
		return req, dep, errModelDenied(req.Model)
	}
	return req, dep, nil
}

// session is what stays on one deployment.
func (k *Key) session() string {
	if k.UserID != "" {
		return k.UserID
	}
	return k.KeyID
}

// bound is the most that a request can use, told from its bytes: no text has
// more tokens than half its bytes in what agents send, and tools and images
// have far fewer.
func bound(req Request, body []byte) pricing.Bound {
	caches := bytes.Contains(body, []byte(`"cache_control"`))
	return pricing.Bound{
		PromptTokens: int64(len(body)+1)/2 + 1000, // 1000: what tools add by themselves
		CacheWrite5m: caches,
		CacheWrite1h: caches && bytes.Contains(body, []byte(`"1h"`)),
		MaxTokens:    req.MaxTokens,
		Fast:         req.Fast,
	}
}

// do admits the request, calls the upstream and passes the answer on. With
// limits the admission is decided first; without, it runs beside the call.
func (r *run) do(ctx context.Context, sink Sink) error {
	admitted := make(chan error, 1)
	admit := func() {
		var err error
		r.ticket, err = r.s.ledger.Admit(ctx, &r.admit)
		if err != nil {
			r.cancel(errNotAllowed)
		}
		admitted <- err
	}
	if r.admit.KeyLimits.Any() || r.admit.TeamLimits.Any() {
		if admit(); r.ticket == nil {
			return r.refused(ctx, <-admitted)
		}
	} else {
		go admit()
	}
	r.idle = time.AfterFunc(r.s.set.IdleTimeout, func() { r.cancel(errIdle) })
	defer r.idle.Stop()
	resp, err := r.s.upstream.Send(ctx, UpstreamRequest{
		Deployment: r.dep, Path: "/v1/messages", Query: r.call.Query,
		Header: forUpstream(r.call.Header, r.call.Key), Body: r.req.WithModel(r.call.Body, r.dep.Model),
	})
	if refusal := <-admitted; refusal != nil {
		if err == nil {
			resp.Body.Close() // it is thrown away
		}
		return r.refused(ctx, refusal)
	}
	if err != nil {
		return r.unanswered(ctx, err)
	}
	defer resp.Body.Close() // read to its end, or thrown away
	r.outcome.HTTPStatus = resp.Status
	r.outcome.UpstreamRequestID = resp.Header.Get("Request-Id")
	r.outcome.FirstByteAt = r.s.now()
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.Status < 200 || resp.Status > 299:
		return r.failed(ctx, resp, sink)
	case encoding != "" && encoding != "identity":
		r.encoded = true
		return r.whole(ctx, resp, sink)
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
		return r.relay(ctx, resp, sink)
	default:
		return r.whole(ctx, resp, sink)
	}
}

func (r *run) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(context.Cause(ctx), errNotAllowed) {
		return context.Cause(ctx) // the client left, or was stopped
	}
	return errAdmission(err)
}

// unanswered ends a request to which no answer began.
func (r *run) unanswered(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		status, reply := ending(cause)
		if e := r.settle(ctx, status, reply); e != nil {
			return e
		}
		if reply != nil {
			return reply
		}
		return cause
	}
	reply := errUpstream(err)
	if e := r.settle(ctx, ledger.Failed, reply); e != nil {
		return e
	}
	return reply
}

// maxErrorBody bounds an upstream's error, and maxAnswer an answer that is not
// streamed.
const (
	maxErrorBody = 1 << 20
	maxAnswer    = 256 << 20
)

// failed passes an upstream's error on, unless our own credential caused it.
func (r *run) failed(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return r.unanswered(ctx, err)
	}
	r.meter.ErrorType = errorType(body)
	if err := r.settle(ctx, ledger.Failed, nil); err != nil {
		return err
	}
	if resp.Status == 401 || resp.Status == 403 {
		return errCredential(resp.Status)
	}
	return reply(sink, resp.Status, r.header(resp), body)
}

// whole passes on an answer that is not streamed, once it is on the ledger.
func (r *run) whole(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return r.unanswered(ctx, err)
	}
	r.meter.Body(body)
	status := ledger.Completed
	if !r.meter.Complete && !r.encoded {
		status = ledger.Failed // whatever it is, it is no message
	}
	if err := r.settle(ctx, status, nil); err != nil {
		return err
	}
	h := r.header(resp)
	h.Set("X-Litellm-Response-Cost", r.outcome.Cost.String())
	return reply(sink, resp.Status, h, body)
}

func (r *run) header(resp *UpstreamResponse) Header {
	return forClient(resp.Header, r.call.RequestID, r.dep.ID)
}

func reply(sink Sink, status int, h Header, body []byte) error {
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if err := sink.Start(status, h); err != nil {
		return err
	}
	return sink.Write(body)
}

// settle puts the end of the request on the ledger. It goes on when the client
// has gone: what was used must be booked. Its error is an answer of ours, since
// an answer that is not on the ledger may not be completed.
func (r *run) settle(ctx context.Context, status ledger.Status, reason *Error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.s.set.SettleTimeout)
	defer cancel()
	o := &r.outcome
	o.Request = r.admit.Request
	o.Status = status
	o.EndedAt = r.s.now()
	o.MessageID, o.StopReason, o.ErrorType = r.meter.MessageID, r.meter.StopReason, r.meter.ErrorType
	if o.ErrorType == "" && reason != nil {
		o.ErrorType = reason.Type
	}
	o.Usage, o.Estimated = r.meter.Usage()
	r.price()
	if err := r.ticket.Settle(ctx, o); err != nil {
		return errOverloaded(err)
	}
	r.s.settled(o)
	return nil
}

// price computes the cost of the outcome's usage. A cost that cannot be
// computed, or whose usage cannot be read, is taken to be the worst case, which
// is marked as estimated.
func (r *run) price() {
	cost, err := r.s.book.Cost(r.dep.Model, r.outcome.Usage, r.admit.StartedAt)
	if err != nil || r.encoded {
		cost, r.outcome.Estimated = r.admit.Hold, true
	}
	r.outcome.Cost = cost
}

// ending says how a request is settled that was cancelled for a cause, and what
// the client is told; nil when it is gone.
func ending(cause error) (ledger.Status, *Error) {
	if stop, ok := errors.AsType[*StopError](cause); ok {
		if stop.Reason == "revoked" {
			return ledger.Stopped, errKey()
		}
		return ledger.Stopped, errGate(Gate{Status: stop.Reason})
	}
	switch {
	case errors.Is(cause, errIdle):
		return ledger.Stopped, &Error{Status: 504, Type: "api_error", Message: "the model provider was silent for too long", RetryAfter: retrySoon}
	case errors.Is(cause, errShutdown):
		return ledger.Stopped, &Error{Status: 503, Type: "overloaded_error", Message: "the proxy is restarting; try again", RetryAfter: retrySoon}
	default:
		return ledger.Aborted, nil
	}
}
