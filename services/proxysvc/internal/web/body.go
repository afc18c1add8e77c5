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
	limits Limits
	held   atomic.Int64
}

// firstPiece is what is held for a body before more of it has arrived. What is
// held grows with what was sent, so that a length that is only claimed takes no
// memory.
const firstPiece = 16 << 10

// read returns the body; release says that it is no longer needed.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if r.ContentLength > MaxBody {
		return nil, nil, errTooLarge()
	}
	held := int64(0)
	free := func() { b.held.Add(-held) }
	rc := http.NewResponseController(w)
	end := time.Now().Add(b.limits.BodyTime)
	var buf []byte
	for {
		if len(buf) == cap(buf) {
			size := nextSize(len(buf), r.ContentLength)
			if b.held.Add(size-held) > b.limits.BodyMemory {
				b.held.Add(held - size)
				free()
				return nil, nil, &proxy.Error{
					Status: http.StatusServiceUnavailable, Type: "overloaded_error", Message: "too many large requests at once; try again", RetryAfter: 2,
				}
			}
			held = size
			buf = append(make([]byte, 0, size), buf...)
		}
		_ = rc.SetReadDeadline(earlier(end, time.Now().Add(b.limits.BodyIdle))) // what cannot have one cannot hang either
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > MaxBody:
			free()
			return nil, nil, errTooLarge()
		case errors.Is(err, io.EOF):
			_ = rc.SetReadDeadline(time.Time{}) // as above
			return buf, free, nil
		case err != nil:
			free()
			return nil, nil, errUnread(err)
		}
	}
}

// nextSize is the capacity after n bytes: sixteen times as much, but no more than the
// length that the client named, and one byte to notice the end. Without a length it is
// twice as much.
func nextSize(n int, length int64) int64 {
	factor := 2
	if length >= 0 {
		factor = 16
	}
	size := int64(max(factor*n, firstPiece))
	if length >= 0 && size > length {
		size = length + 1
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
