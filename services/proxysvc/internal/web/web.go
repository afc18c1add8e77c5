// Package web is the HTTP edge of the data path: Anthropic's routes, mounted on
// the gateway's mux without a detour through protobuf, so that a stream is
// copied once and flushed as it arrives.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/id"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// MaxBody is the largest request body, Anthropic's own limit.
const MaxBody = 32 << 20

// Handler serves Anthropic's routes.
type Handler struct {
	svc *proxy.Service
	// failed is told of answers of our own that an operator may care for.
	failed func(requestID string, err error)
}

// New makes a handler.
func New(svc *proxy.Service, failed func(requestID string, err error)) *Handler {
	return &Handler{svc: svc, failed: failed}
}

// CreateMessage is POST /v1/messages.
func (h *Handler) CreateMessage(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, h.svc.CreateMessage)
}

// CountTokens is POST /v1/messages/count_tokens.
func (h *Handler) CountTokens(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, h.svc.CountTokens)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, do func(context.Context, proxy.Call, proxy.Sink) error) {
	call := h.call(r)
	body, err := readBody(w, r)
	if err != nil {
		h.answer(w, r, call.RequestID, err)
		return
	}
	call.Body = body
	sink := &sink{w: w, flush: http.NewResponseController(w).Flush}
	err = do(r.Context(), call, sink)
	switch {
	case err == nil:
	case !sink.started:
		h.answer(w, r, call.RequestID, err)
	default:
		h.failed(call.RequestID, err)
		panic(http.ErrAbortHandler) // net/http's way to drop a connection: an error has no clean end
	}
}

// Models is GET /v1/models: Anthropic's shape for Anthropic's clients, which
// always send anthropic-version, and OpenAI's otherwise, as LiteLLM answers.
func (h *Handler) Models(w http.ResponseWriter, r *http.Request) {
	call := h.call(r)
	names, err := h.svc.Models(r.Context(), call)
	if err != nil {
		h.answer(w, r, call.RequestID, err)
		return
	}
	var body any = openAIModels(names)
	if r.Header.Get("Anthropic-Version") != "" {
		body = anthropicModels(names)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", call.RequestID)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // the client is gone
}

// NotFound answers what is no route, in Anthropic's shape.
func (h *Handler) NotFound(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, id.New("req_", time.Now()), &proxy.Error{Status: http.StatusNotFound, Type: "not_found_error", Message: "Not found"})
}

// MethodNotAllowed answers a route that is called by another method.
func (h *Handler) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, id.New("req_", time.Now()), &proxy.Error{
		Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Message: "Method Not Allowed",
	})
}

func (h *Handler) call(r *http.Request) proxy.Call {
	header := proxy.Header(r.Header)
	return proxy.Call{
		RequestID: id.New("req_", time.Now()),
		Key:       proxy.KeyFrom(header),
		Header:    header,
		Query:     r.URL.RawQuery,
	}
}

// readBody reads the body whole: handing the inbound body to the transport
// makes answers break off when the upstream answers early.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &proxy.Error{
			Status: http.StatusRequestEntityTooLarge, Type: "request_too_large",
			Message: "the request is larger than the limit of " + strconv.Itoa(MaxBody>>20) + " MB",
		}
	}
	if err != nil {
		return nil, &proxy.Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: "the request body could not be read"}
	}
	return body, nil
}

// answer sends an error of ours. It says nothing to a client that has gone.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, requestID string, err error) {
	own, ok := errors.AsType[*proxy.Error](err)
	if !ok {
		if r.Context().Err() != nil {
			return
		}
		own = &proxy.Error{Status: http.StatusInternalServerError, Type: "api_error", Message: "internal error", RetryAfter: 2}
	}
	if own.Status >= http.StatusInternalServerError {
		h.failed(requestID, err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Request-Id", requestID)
	header.Set("X-Llmproxy-Request-Id", requestID)
	header.Set("X-Should-Retry", strconv.FormatBool(own.RetryAfter > 0))
	if own.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(own.RetryAfter))
	}
	w.WriteHeader(own.Status)
	w.Write(own.Body(requestID)) //nolint:errcheck,gosec // the client is gone
}

// sink passes an answer on over HTTP.
type sink struct {
	w       http.ResponseWriter
	flush   func() error
	started bool
	stream  bool
}

// Start implements proxy.Sink.
func (s *sink) Start(status int, h proxy.Header) error {
	s.started = true
	s.stream = strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
	header := s.w.Header()
	for name, values := range h {
		header[name] = values
	}
	s.w.WriteHeader(status)
	if s.stream {
		return s.flush()
	}
	return nil
}

// Write implements proxy.Sink.
func (s *sink) Write(p []byte) error {
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	if s.stream {
		return s.flush()
	}
	return nil
}
