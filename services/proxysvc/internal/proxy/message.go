package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/leash"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// run is one charged request on its way.
type run struct {
	outbound
	key     *Key
	admit   ledger.Admission
	ticket  *ledger.Ticket
	spent   money.NanoUSD // by the key before this request, if it is known
	meter   meter
	decoder decoder           // of a compressed answer; nil: it is not
	result  ledger.Settlement // filled in on the way

	told       bool // what the ticket says of the key was taken notice of
	spentKnown bool
	opaque     bool // the answer cannot be read, so that its cost is the worst case

	life     leash.Leash // ends when the client has gone or the request was stopped
	over     leash.Hook  // then tells the sink
	settling waiting     // for its settlement
}

// CreateMessage runs one charged request of any API. It returns an *Error while
// nothing has been sent to the client, ErrCut when the connection must be
// dropped, the sink's error when the client is gone, and nil when the answer has
// ended properly.
func (s *Service) CreateMessage(ctx context.Context, c Call, sink Sink) error {
	r, err := s.prepare(ctx, c)
	if err != nil {
		return err
	}
	ctx = r.life.Begin(ctx)
	defer r.life.End(nil)
	r.over.After(ctx, sink)
	defer r.over.Stop() // before the end of what is over anyway
	if stopped := s.running.Add(r.key, &r.life); stopped != nil {
		return stopped
	}
	defer s.running.Remove(&r.life)
	return r.do(ctx, sink)
}

// do admits the request, calls the upstream and passes the answer on. Where limits must be
// looked at in Postgres, the admission is decided first; else it runs beside the call.
func (r *run) do(ctx context.Context, sink Sink) error {
	if r.spent, r.spentKnown = r.key.spent.of(r.admit.StartedAt); !r.spentKnown {
		r.admit.AskSpent = !slices.ContainsFunc(r.admit.Claims, func(c ledger.Claim) bool { return c.Account.Kind == ledger.KindKey })
	}
	if r.ticket = r.s.ledger.Begin(&r.admit); r.ticket == nil {
		var err error
		if r.ticket, err = r.s.ledger.Admit(ctx, &r.admit); err != nil {
			return r.refused(ctx, err)
		}
		r.tell()
	}
	defer r.stop()
	var refusal error
	attempt, resp, err := r.send(ctx, func(attempt context.Context, resp *UpstreamResponse) error {
		if resp != nil && resp.good() && !resp.streamed() {
			return nil // it is passed on once it is settled
		}
		if refusal = r.ticket.Wait(ctx); refusal != nil { // an attempt that is over may have a next one
			r.throwAway(attempt, resp)
			return refusal
		}
		r.tell()
		return nil
	})
	switch {
	case refusal != nil:
		return r.refused(ctx, refusal)
	case err != nil:
		return r.unanswered(attempt, err)
	}
	defer resp.Body.Close() // read to its end, or thrown away
	return r.passOn(attempt, resp, sink)
}

func (u *UpstreamResponse) good() bool { return u.Status >= 200 && u.Status <= 299 }

func (u *UpstreamResponse) streamed() bool {
	return strings.HasPrefix(u.Header.Get("Content-Type"), "text/event-stream")
}

// tell takes notice of what the ledger says of the key, once.
func (r *run) tell() {
	if r.told {
		return
	}
	r.told = true
	for _, w := range r.ticket.Standing.Warnings {
		r.s.warn(w)
	}
	if now := r.ticket.Standing.KeySpent; now != nil {
		r.spent, r.spentKnown = *now, true
		if r.admit.AskSpent {
			r.key.spent.note(*now, r.s.now())
		}
	}
}

// throwAway books a request whose upstream was called beside an admission that
// failed. A stream is read until its prompt was counted, which OpenAI's say at their end
// only. Nil: no answer came, or it was an error.
func (r *run) throwAway(ctx context.Context, resp *UpstreamResponse) {
	status := ledger.Failed
	if resp != nil {
		r.result.HTTPStatus, r.result.UpstreamRequestID = resp.Status, requestID(resp.Header)
	}
	if resp != nil && resp.good() {
		status = ledger.Stopped
		r.countPrompt(resp)
	} else if cause := leash.Cause(ctx); cause != nil {
		status, _ = ending(cause)
	}
	_ = r.settle(ctx, status, nil) // nothing more can be done: Postgres and the journal are away
}

// countPrompt reads a stream until it says what its prompt was counted to.
func (r *run) countPrompt(resp *UpstreamResponse) {
	r.meter = r.call.API.newMeter(int64(len(r.call.Body))/4, false)
	if r.decoder, r.opaque = newDecoder(resp.Header.Get("Content-Encoding")); r.decoder != nil {
		defer r.decoder.Close()
	}
	s := &stream{run: r, split: sse.NewSplitter(maxEvent)}
	buf := make([]byte, 4<<10)
	for err := error(nil); err == nil && !r.meter.Answer().started && s.end == nil; {
		var n int
		n, err = resp.Body.Read(buf)
		s.take(buf[:n])
	}
}

// passOn relays an answer that has begun.
func (r *run) passOn(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	r.meter = r.call.API.newMeter(int64(len(r.call.Body))/4, r.req.HideUsage)
	r.call.Body = nil
	if r.call.Release != nil {
		r.call.Release() // a stream can last much longer than its body is needed
	}
	r.result.HTTPStatus = resp.Status
	r.result.UpstreamRequestID = requestID(resp.Header)
	r.result.FirstByteAt = r.s.now()
	r.decoder, r.opaque = newDecoder(resp.Header.Get("Content-Encoding"))
	switch {
	case !resp.good():
		return r.failed(ctx, resp, sink)
	case resp.streamed():
		if r.opaque {
			return r.blind(ctx, resp, sink)
		}
		return r.relay(ctx, resp, sink)
	default:
		return r.whole(ctx, resp, sink)
	}
}

// requestID is the upstream's own: Anthropic's header, or OpenAI's.
func requestID(h head.Lines) string {
	if id := h.Get("Request-Id"); id != "" {
		return id
	}
	return h.Get("X-Request-Id")
}

func (r *run) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		cause := leash.Cause(ctx)
		if _, reply := ending(cause); reply != nil {
			return reply // it was stopped
		}
		return cause // the client left
	}
	return r.s.errAdmission(err)
}

// unanswered ends a request to which no answer began, or only a part of one that
// nothing was passed on of.
func (r *run) unanswered(ctx context.Context, err error) error {
	status, reply := ledger.Failed, errUpstream(err)
	if r.meter != nil && r.result.HTTPStatus < 300 {
		status = ledger.Interrupted // it broke off in the middle
	}
	if cause := leash.Cause(ctx); cause != nil {
		status, reply = ending(cause)
		err = cause
	}
	if e := r.settle(ctx, status, reply); e != nil {
		return e
	}
	if reply != nil {
		return reply
	}
	return err
}

// maxErrorBody bounds an upstream's error, and maxAnswer an answer that is not
// streamed.
const (
	maxErrorBody = 1 << 20
	maxAnswer    = 256 << 20
)

// failed passes an upstream's error on, unless our own credential caused it.
func (r *run) failed(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	body, err := readWhole(resp, maxErrorBody, nil)
	if err != nil {
		return r.unanswered(ctx, err)
	}
	r.meter.Answer().ErrorType = errorType(r.decoded(body))
	if err := r.settle(ctx, ledger.Failed, nil); err != nil {
		return err
	}
	if resp.Status == 401 || resp.Status == 403 {
		return errCredential(resp.Status)
	}
	return reply(sink, resp.Status, r.header(resp, 0), body)
}

// whole passes on an answer that is not streamed, once it is on the ledger.
func (r *run) whole(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	buf := wholes.Get().(*[]byte)
	body, err := readWhole(resp, maxAnswer, *buf)
	if cap(body) <= keptWhole {
		*buf = body
	}
	if err != nil {
		r.meter.Piece(max(1, len(body))) // it was generated, so it is billed
		return r.unanswered(ctx, err)
	}
	r.meter.Body(r.decoded(body))
	status := ledger.Completed
	if !r.meter.Answer().Complete && !r.opaque {
		status = ledger.Failed // whatever it is, it is no message
	}
	if err := r.settle(ctx, status, nil); err != nil {
		return err
	}
	h := append(r.header(resp, r.result.Cost), head.Line{Name: "X-Litellm-Response-Cost", Value: r.result.Cost.String()})
	if err := reply(sink, resp.Status, h, body); err != nil {
		return err // the buffer is not used again: a server may be at a write that it gave up
	}
	wholes.Put(buf)
	return nil
}

// wholes are buffers of whole answers that nobody has. Larger ones than keptWhole are
// not kept.
var wholes = sync.Pool{New: func() any { return new([]byte) }}

const keptWhole = 64 << 10

// readWhole reads a body of at most so many bytes to its end, if there is room into a
// buffer: one that is cut off must not look whole. What it has read comes with an error,
// too.
func readWhole(resp *UpstreamResponse, most int, buf []byte) ([]byte, error) {
	body := slices.Grow(buf[:0], int(min(max(resp.Length, 512)+1, 1<<20)))
	for {
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > most:
			return body, fmt.Errorf("the upstream's answer has over %d bytes", most)
		case errors.Is(err, io.EOF) && int64(len(body)) < resp.Length:
			return body, io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return body, err
		}
		body = slices.Grow(body, 1)
	}
}

// decoded is a whole body without its compression; one that cannot be undone is
// opaque.
func (r *run) decoded(body []byte) []byte {
	if r.decoder == nil {
		return body
	}
	plain, err := r.decoder.Feed(body)
	r.decoder.Close()
	if err != nil {
		r.opaque = true
	}
	return plain
}

// header is the answer's header with ours. cost is what the request is known to
// have cost by now.
func (r *run) header(resp *UpstreamResponse, cost money.NanoUSD) head.Lines {
	h := forClient(resp.Header, r.call.RequestID, r.dep.ID)
	if r.spentKnown {
		h = append(h, head.Line{Name: "X-Litellm-Key-Spend", Value: (r.spent + cost).String()})
	}
	if left := r.ticket.Standing.Left; left != nil {
		h = append(h, head.Line{Name: "X-Llmproxy-Budget-Remaining", Value: max(0, *left-cost).String()})
		if at := r.ticket.Standing.ResetsAt; !at.IsZero() {
			h = append(h, head.Line{Name: "X-Llmproxy-Budget-Reset", Value: at.UTC().Format(time.RFC3339)})
		}
	}
	return h
}

func reply(sink Sink, status int, h head.Lines, body []byte) error {
	h = append(h, head.Line{Name: "Content-Length", Value: strconv.Itoa(len(body))})
	if err := sink.Start(status, h); err != nil {
		return err
	}
	return sink.Write(body)
}

// settle puts the end of the request on the ledger. It goes on when the client
// has gone: what was used must be booked. Its error is an answer of ours, since
// an answer that is not on the ledger may not be completed.
func (r *run) settle(ctx context.Context, status ledger.Status, reason *Error) error {
	ctx = r.s.settling.begin(context.WithoutCancel(ctx), &r.settling)
	defer r.s.settling.end(&r.settling)
	o := &r.result
	o.Request = r.admit.Request
	o.Model, o.ModelID, o.Retries = r.dep.Model, r.dep.ID, r.retries
	o.Status = status
	o.EndedAt = r.s.now()
	if r.meter != nil {
		a := r.meter.Answer()
		o.MessageID, o.StopReason, o.ErrorType = a.MessageID, a.StopReason, a.ErrorType
		o.Usage, o.Estimated = a.Usage()
	}
	if o.ErrorType == "" && reason != nil {
		o.ErrorType = reason.Type
	}
	o.Thread = r.thread(status)
	o.Usage = r.plausible(o.Usage, o.Estimated)
	o.Cost, o.Breakdown = r.cost(o.Usage)
	o.Estimated = o.Estimated || r.opaque
	if o.Estimated && o.Cost > r.admit.Hold {
		o.Cost, o.Breakdown = r.admit.Hold, map[string]money.NanoUSD{"unknown": r.admit.Hold}
	}
	r.dep.health.use(o.Usage.PromptTokens()+o.Usage.OutputTokens, o.EndedAt)
	if err := r.ticket.Settle(ctx, o); err != nil {
		return errOverloaded(err)
	}
	r.tell()
	r.key.spent.add(o.Cost)
	if status == ledger.Interrupted {
		r.dep.health.fail(r.table.AllowedFails, r.table.Cooldown, o.EndedAt)
	}
	r.s.settled(o)
	return nil
}

// plausible keeps an estimate of the output within what the request allows: no
// estimate costs more than is held for it.
func (r *run) plausible(u pricing.Usage, estimated bool) pricing.Usage {
	if most := r.req.MaxTokens * max(1, r.req.Answers); estimated && most > 0 {
		u.OutputTokens = min(u.OutputTokens, most)
	}
	return u
}

// thread is what must be remembered so that a later request can continue the
// answer at its deployment; nil: nothing.
func (r *run) thread(status ledger.Status) *ledger.Thread {
	if !r.req.Held || status != ledger.Completed || r.result.MessageID == "" {
		return nil
	}
	u := r.result.Usage
	return &ledger.Thread{
		Owner: r.key.owner(), MessageID: r.result.MessageID, ModelID: r.dep.ID,
		Tokens: u.PromptTokens() + u.OutputTokens,
	}
}

// cost prices usage, whole and by pool. What cannot be priced, or read, costs the
// worst case.
func (r *run) cost(u pricing.Usage) (money.NanoUSD, map[string]money.NanoUSD) {
	if price, _ := r.s.priceOf(&r.dep); price != nil && !r.opaque {
		if cost, parts, err := price.Breakdown(u, r.admit.StartedAt); err == nil {
			return cost, parts
		}
	}
	r.opaque = true
	return r.admit.Hold, map[string]money.NanoUSD{"unknown": r.admit.Hold}
}

// ending says how a request is settled that was cancelled for a cause, and what
// the client is told; nil when it is gone.
func ending(cause error) (ledger.Status, *Error) {
	if stop, ok := errors.AsType[*StopError](cause); ok {
		switch stop.Reason {
		case Revoked:
			return ledger.Stopped, errKey()
		case Unverified:
			return ledger.Stopped, errOverloaded(nil)
		}
		return ledger.Stopped, errGate(Gate{Status: stop.Reason})
	}
	switch {
	case errors.Is(cause, errIdle):
		return ledger.Stopped, &Error{Status: 504, Type: "api_error", Message: "the model provider was silent for too long", RetryAfter: retrySoon}
	case errors.Is(cause, errTimeout):
		return ledger.Stopped, &Error{Status: 504, Type: "timeout_error", Message: "the model provider took too long", RetryAfter: retrySoon}
	case errors.Is(cause, errShutdown):
		return ledger.Stopped, &Error{Status: 503, Type: "overloaded_error", Message: "the proxy is restarting; try again", RetryAfter: retrySoon}
	default:
		return ledger.Aborted, nil
	}
}
