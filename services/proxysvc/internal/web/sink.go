package web

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// sink passes an answer on over HTTP.
type sink struct {
	w       http.ResponseWriter
	rc      http.ResponseController
	timeout time.Duration
	loan    *proxy.Loan // of the request's body; nil: it is no longer needed
	started bool
	stream  bool

	mu      sync.Mutex
	stopped bool
	over    bool
	until   time.Time // the deadline that is set
}

// stopGrace is how long a client that takes nothing may hold up the end of a
// request that was stopped.
const stopGrace = 2 * time.Second

// Stop implements proxy.Sink.
func (s *sink) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.deadline()
}

// releaseBody lets go of the request's body, once.
func (s *sink) releaseBody() {
	s.loan.Release()
	s.loan = nil
}

// end takes the deadline off again: the connection may carry another request.
func (s *sink) end() {
	s.releaseBody()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	_ = s.rc.SetWriteDeadline(time.Time{}) // as below
}

// deadline bounds the write that runs, or the next one.
func (s *sink) deadline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	d, now := s.timeout, time.Now()
	if s.stopped {
		d = stopGrace
	} else if s.until.Sub(now) > d-d/8 {
		return // near enough: to set it costs as much as a small write
	}
	s.until = now.Add(d)
	_ = s.rc.SetWriteDeadline(s.until) // what cannot have one cannot hang either
}

// lineWriter is kit/serve/lean's http.ResponseWriter.
type lineWriter interface {
	WriteLines(status int, lines head.Lines)
}

// Start implements proxy.Sink.
func (s *sink) Start(status int, h head.Lines) error {
	s.started = true
	s.stream = strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
	s.deadline()
	if w, ok := s.w.(lineWriter); ok {
		w.WriteLines(status, h)
	} else {
		to := s.w.Header()
		for _, l := range h {
			to[l.Name] = append(to[l.Name], l.Value)
		}
		s.w.WriteHeader(status)
	}
	return nil
}

// flusher is kit/serve/lean's: it writes and flushes at once.
type flusher interface{ WriteFlush(p []byte) error }

// Write implements proxy.Sink.
func (s *sink) Write(p []byte) error {
	s.deadline()
	if both, ok := s.w.(flusher); ok && s.stream {
		return both.WriteFlush(p)
	}
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	if s.stream {
		return s.rc.Flush()
	}
	return nil
}

// Last implements proxy.Sink: what is held goes when the handler returns.
func (s *sink) Last(p []byte) error {
	s.deadline()
	_, err := s.w.Write(p)
	return err
}
