// Package web is the HTTP edge of the data path: the routes of Anthropic's
// and OpenAI's clients, served by kit/serve/lean or mounted on the gateway's mux
// without a detour through protobuf, so that a stream is copied once and flushed
// as it arrives.
package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/id"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Handler serves the routes of Anthropic's and OpenAI's clients.
type Handler struct {
	svc    *proxy.Service
	limits Limits
	bodies bodies
	// failed is told of answers of our own that an operator may care for.
	failed func(requestID string, err error)
}

// New makes a handler.
func New(svc *proxy.Service, limits Limits, failed func(requestID string, err error)) *Handler {
	return &Handler{svc: svc, limits: limits, bodies: bodies{limits: limits}, failed: failed}
}

// CreateMessage is POST /v1/messages.
func (h *Handler) CreateMessage(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, proxy.Messages, h.svc.CreateMessage)
}

// CountTokens is POST /v1/messages/count_tokens.
func (h *Handler) CountTokens(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, proxy.Messages, h.svc.CountTokens)
}

// ChatCompletions is POST /v1/chat/completions.
func (h *Handler) ChatCompletions(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, proxy.ChatCompletions, h.svc.CreateMessage)
}

// Responses is POST /v1/responses.
func (h *Handler) Responses(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, proxy.Responses, h.svc.CreateMessage)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, api proxy.API, do func(context.Context, proxy.Call, proxy.Sink) error) {
	call := h.call(r, api)
	body, loan, err := h.bodies.read(w, r)
	if err != nil {
		h.answer(w, r, call, err)
		return
	}
	sink := &sink{w: w, rc: *http.NewResponseController(w), timeout: h.limits.ClientTimeout, loan: loan}
	call.Body, call.Loan, call.Release = body, loan, sink.releaseBody
	defer sink.end()
	over := false
	defer func() {
		if !over { // it panics, and who reads the body cannot be told
			loan.Spoil()
		}
	}()
	err = do(r.Context(), call, sink)
	over = true
	switch {
	case err == nil:
	case !sink.started:
		h.answer(w, r, call, err)
	default:
		h.failed(call.RequestID, err)
		panic(http.ErrAbortHandler) // net/http's way to drop a connection: an error has no clean end
	}
}

// NotFound answers what is no route, in Anthropic's shape.
func (h *Handler) NotFound(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, h.call(r, apiOf(r)), &proxy.Error{Status: http.StatusNotFound, Type: "not_found_error", Message: "Not found"})
}

// MethodNotAllowed answers a route that is called by another method.
func (h *Handler) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, h.call(r, apiOf(r)), &proxy.Error{
		Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Message: "Method Not Allowed",
	})
}

// requestIDHeader is where an API's clients look for the request's id.
func requestIDHeader(api proxy.API) string {
	if api == proxy.Messages {
		return "Request-Id"
	}
	return "X-Request-Id"
}

// apiOf tells whose client asks for something that both APIs have: Anthropic's
// always send anthropic-version.
func apiOf(r *http.Request) proxy.API {
	if r.Header.Get("Anthropic-Version") != "" || !strings.Contains(r.URL.Path, "/chat/") && !strings.HasSuffix(r.URL.Path, "/responses") {
		return proxy.Messages
	}
	return proxy.ChatCompletions
}

// routeOf is a path below one /v1, whether it has none, one or two.
func routeOf(path string) string {
	below := strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/v1")
	if at := len(path) - len(below) - len("/v1"); at >= 0 {
		return path[at:]
	}
	return "/v1" + below
}

func (h *Handler) call(r *http.Request, api proxy.API) proxy.Call {
	header := proxy.Header(r.Header)
	return proxy.Call{
		API:       api,
		Path:      routeOf(r.URL.Path),
		From:      h.limits.Proxies.ClientOf(r),
		RequestID: id.New("req_", time.Now()),
		Key:       proxy.KeyFrom(header),
		Header:    header,
		Query:     r.URL.RawQuery,
	}
}

// answer sends an error of ours. It says nothing to a client that has gone.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, call proxy.Call, err error) {
	own, ok := errors.AsType[*proxy.Error](err)
	if !ok {
		if r.Context().Err() != nil {
			return
		}
		own = &proxy.Error{Status: http.StatusInternalServerError, Type: "api_error", Message: "internal error", RetryAfter: 2}
	}
	if own.Status >= http.StatusInternalServerError {
		h.failed(call.RequestID, err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set(requestIDHeader(call.API), call.RequestID)
	header.Set("X-Llmproxy-Request-Id", call.RequestID)
	header.Set("X-Should-Retry", strconv.FormatBool(own.RetryAfter > 0))
	if own.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(own.RetryAfter))
	}
	w.WriteHeader(own.Status)
	w.Write(call.API.ErrorBody(own, call.RequestID)) //nolint:errcheck,gosec // the client is gone
}
