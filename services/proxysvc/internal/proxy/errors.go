package proxy

import (
	"encoding/json"
	"errors"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Error is an answer of our own, in Anthropic's shape.
type Error struct {
	Status  int
	Type    string // Anthropic's error type
	Message string // safe to show
	// RetryAfter in seconds, at most 30: Claude Code gives up on more. 0: the
	// error is final, and x-should-retry says so.
	RetryAfter int
	cause      error
}

// Error describes it for logs, with its cause.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Type + ": " + e.Message + ": " + e.cause.Error()
	}
	return e.Type + ": " + e.Message
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Body is the error in Anthropic's shape:
// {"type":"error","error":{"type":"…","message":"…"},"request_id":"…"}.
func (e *Error) Body(requestID string) []byte {
	type inner struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Type      string `json:"type"`
		Error     inner  `json:"error"`
		RequestID string `json:"request_id"`
	}{"error", inner{e.Type, e.Message}, requestID})
	if err != nil {
		return []byte(`{"type":"error","error":{"type":"api_error","message":"internal error"}}`)
	}
	return body
}

// retrySoon is the retry-after of errors that pass by themselves, in seconds.
const retrySoon = 2

// The errors that need no detail. All causes of a bad key look the same.
func errKey() *Error {
	return &Error{Status: 401, Type: "authentication_error", Message: "invalid x-api-key"}
}

func errBody(text string) *Error {
	return &Error{Status: 400, Type: "invalid_request_error", Message: text}
}

func errModel(model string) *Error {
	return &Error{Status: 404, Type: "not_found_error", Message: "model: " + model}
}

func errModelDenied(model string) *Error {
	return &Error{Status: 403, Type: "permission_error", Message: "this key may not use the model " + model}
}

func errOverloaded(cause error) *Error {
	return &Error{Status: 503, Type: "overloaded_error", Message: "the proxy cannot check this request now; try again", RetryAfter: retrySoon, cause: cause}
}

func errUpstream(cause error) *Error {
	return &Error{Status: 502, Type: "api_error", Message: "the model provider could not be reached; try again", RetryAfter: retrySoon, cause: cause}
}

// errCredential stands for a 401 or 403 that our own credential caused. The
// client can do nothing about it, and must not take its own key for bad.
func errCredential(status int) *Error {
	return &Error{
		Status: 502, Type: "api_error", Message: "the model provider refused the proxy's own credential; an operator must look at it",
		RetryAfter: 30, cause: fault.Errorf(fault.Precondition, "the upstream answered %d to the real key", status),
	}
}

func errGate(g Gate) *Error {
	message := g.Reason
	switch g.Status {
	case "exhausted":
		if message == "" {
			message = "the organization's credits are used up"
		}
		return &Error{Status: 402, Type: "billing_error", Message: message}
	default:
		if message == "" {
			message = "the organization is " + g.Status
		}
		return &Error{Status: 403, Type: "permission_error", Message: message}
	}
}

// errAdmission turns the ledger's answer into ours: money that is spent is
// final (402), money that is only held comes free again (429).
func errAdmission(err error) *Error {
	refusal, ok := errors.AsType[*ledger.Refusal](err)
	switch {
	case !ok:
		return errOverloaded(err)
	case refusal.Final:
		return &Error{Status: 402, Type: "billing_error", Message: refusal.Message}
	default:
		return &Error{Status: 429, Type: "rate_limit_error", Message: refusal.Message, RetryAfter: retrySoon}
	}
}

// ErrCut tells the edge to drop the connection: the answer began and cannot be
// ended properly, and a clean end would make half an answer look whole.
var ErrCut = errors.New("the answer was cut")

// The reasons for which a running request is ended from our side.
var (
	errIdle       = errors.New("idle")
	errShutdown   = errors.New("shutdown")
	errNotAllowed = errors.New("not admitted")
)

// StopError is why the key service had a request stopped.
type StopError struct{ Reason string }

// Error returns the reason.
func (e *StopError) Error() string { return "stopped: " + e.Reason }
