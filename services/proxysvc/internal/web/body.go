package web

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// MaxBody is the largest request body, Anthropic's own limit.
const MaxBody = 32 << 20

// Limits bound what clients may take up.
type Limits struct {
	// BodyMemory is how many bytes of request bodies may be held at once.
	BodyMemory int64
	// BodyTime is how long a body may take to arrive, and BodyIdle how long it may
	// pause.
	BodyTime, BodyIdle time.Duration
	// ClientTimeout is how long a client may take nothing of its answer.
	ClientTimeout time.Duration
	// Proxies say where a client is that comes through them.
	Proxies serve.Proxies
}

// bodies reads request bodies whole: handing the inbound body to the transport
// makes answers break off when the upstream answers early.
type bodies struct {
	limits  Limits
	held    atomic.Int64
	buffers buffers
}

// firstPiece is what is held for a body before more of it has arrived. What is
// held grows with what was sent, so that a length that is only claimed takes no
// memory.
const firstPiece = 16 << 10

// read returns the body, on loan: its buffer is another one's after it.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, loan *proxy.Loan, err error) {
	if r.ContentLength > MaxBody {
		return nil, nil, errTooLarge()
	}
	arriving := arrival{bodies: b, rc: http.NewResponseController(w), end: time.Now().Add(b.limits.BodyTime)}
	if err := arriving.read(r); err != nil {
		arriving.free()
		return nil, nil, err
	}
	return arriving.buf, proxy.NewLoan(func(spoiled bool) {
		if spoiled {
			arriving.buf = nil
		}
		arriving.free()
	}), nil
}

// arrival is a body that is being read.
type arrival struct {
	*bodies
	rc  *http.ResponseController
	buf []byte
	// held is what the buffer counts for.
	held int64
	// end is when the body must be there, and until the deadline that is set.
	end, until time.Time
}

// free gives back what is held.
func (a *arrival) free() {
	a.bodies.held.Add(-a.held)
	if a.held = 0; a.buf != nil {
		a.buffers.put(a.buf)
	}
	a.buf = nil
}

// read reads the body to its end.
func (a *arrival) read(r *http.Request) error {
	for {
		if a.full(r.ContentLength) {
			if err := a.grow(r.ContentLength); err != nil {
				return err
			}
		}
		a.deadline()
		n, err := r.Body.Read(a.buf[len(a.buf):cap(a.buf)])
		a.buf = a.buf[:len(a.buf)+n]
		switch {
		case len(a.buf) > MaxBody:
			return errTooLarge()
		case errors.Is(err, io.EOF):
			_ = a.rc.SetReadDeadline(time.Time{}) // as below
			return nil
		case err != nil:
			return errUnread(err)
		}
	}
}

// leastRead is what a read should have room for, unless less is to come: the connection's
// own buffer stands behind smaller ones.
const leastRead = 4 << 10

// full says whether there is too little room for what is to come.
func (a *arrival) full(length int64) bool {
	room := cap(a.buf) - len(a.buf)
	return room == 0 || room < leastRead && length-int64(len(a.buf)) > int64(room)
}

// grow makes room for more, if the memory is there. While half of it is free, a buffer is
// made for the whole body sooner: what has come need not be copied so often.
func (a *arrival) grow(length int64) error {
	n := len(a.buf)
	if !a.hold(nextSize(n, length, true), a.limits.BodyMemory/2) && !a.hold(nextSize(n, length, false), a.limits.BodyMemory) {
		return &proxy.Error{
			Status: http.StatusServiceUnavailable, Type: "overloaded_error", Message: "too many large requests at once; try again", RetryAfter: 2,
		}
	}
	larger := append(a.buffers.get(int(a.held)), a.buf...)
	if a.buf != nil {
		a.buffers.put(a.buf)
	}
	a.buf = larger
	return nil
}

// hold counts a buffer of a size, unless more than most would be held by all.
func (a *arrival) hold(size, most int64) bool {
	size = room(size)
	if a.bodies.held.Add(size-a.held) > most {
		a.bodies.held.Add(a.held - size)
		return false
	}
	a.held = size
	return true
}

// deadline bounds the next read. One that is far enough away stays: to set it costs as
// much as a small read.
func (a *arrival) deadline() {
	now, idle := time.Now(), a.limits.BodyIdle
	if a.until.Equal(a.end) || a.until.Sub(now) >= idle {
		return
	}
	a.until = earlier(a.end, now.Add(idle+idle/8))
	_ = a.rc.SetReadDeadline(a.until) // what cannot have one cannot hang either
}

// nextSize is the capacity after n bytes: sixteen times as much, but no more than the
// length that the client named. Where there is plenty, it is the length once a hundred
// and twenty-eighth of it has come. Without a length it is twice as much.
func nextSize(n int, length int64, plenty bool) int64 {
	size := int64(max(2*n, firstPiece))
	if length >= 0 {
		size = min(int64(max(16*n, firstPiece)), length)
	}
	if plenty && length <= 128*int64(n) {
		size = max(size, length)
	}
	return max(min(size, MaxBody+1), int64(n)+1)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func errTooLarge() *proxy.Error {
	return &proxy.Error{
		Status: http.StatusRequestEntityTooLarge, Type: "request_too_large",
		Message: "the request is larger than the limit of " + strconv.Itoa(MaxBody>>20) + " MB",
	}
}

func errUnread(err error) *proxy.Error {
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return &proxy.Error{Status: http.StatusRequestTimeout, Type: "invalid_request_error", Message: "the request body did not arrive in time"}
	}
	return &proxy.Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: "the request body could not be read"}
}
