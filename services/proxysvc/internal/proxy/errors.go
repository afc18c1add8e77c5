package proxy

import (
	"errors"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Error is an answer of our own, in Anthropic's shape.
type Error struct {
	Status  int
	Type    string // Anthropic's error type
	Message string // safe to show
	Code    string // Anthropic's details.error_code; empty: none
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
	type details struct {
		ErrorCode string `json:"error_code"`
	}
	type inner struct {
		Type    string   `json:"type"`
		Message string   `json:"message"`
		Details *details `json:"details,omitempty"`
	}
	in := inner{Type: e.Type, Message: e.Message}
	if e.Code != "" {
		in.Details = &details{e.Code}
	}
	return encode(struct {
		Type      string `json:"type"`
		Error     inner  `json:"error"`
		RequestID string `json:"request_id"`
	}{"error", in, requestID})
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
	return &Error{Status: 404, Type: "not_found_error", Message: "model: " + shown(model)}
}

// longestShown bounds names in messages, in bytes.
const longestShown = 200

// shown is a name that a client sent, short enough for a message and not its key.
func shown(name string) string {
	if strings.HasPrefix(name, "sk-") {
		return "sk-…"
	}
	if len(name) > longestShown {
		return strings.ToValidUTF8(name[:longestShown], "") + "…"
	}
	return name
}

// errWrongAPI answers a model that is served, but by the other provider's route.
func errWrongAPI(model string, p Provider) *Error {
	routes := "POST /v1/messages"
	if p == OpenAI {
		routes = "POST /v1/chat/completions and /v1/responses"
	}
	return &Error{Status: 404, Type: "not_found_error", Message: "model: " + shown(model) + " is served by " + routes}
}

// errFull answers when every deployment has used up its rpm or tpm.
func errFull(model string, wait time.Duration) *Error {
	return &Error{
		Status: 429, Type: "rate_limit_error", Message: "every deployment of " + shown(model) + " is at its limit for this minute; try again",
		RetryAfter: seconds(wait),
	}
}

// errThread answers a request that continues a conversation which cannot be
// reached. Anthropic's SDKs then send the conversation anew.
func errThread(id, what string) *Error {
	return &Error{Status: 404, Type: "not_found_error", Message: "the conversation of " + shown(id) + " " + what, Code: threadNotFound}
}

const threadNotFound = "thread_not_found"

func errModelDenied(model string) *Error {
	return &Error{Status: 403, Type: "permission_error", Message: "this key may not use the model " + shown(model)}
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
func (s *Service) errAdmission(err error) *Error {
	refusal, ok := errors.AsType[*ledger.Refusal](err)
	switch {
	case !ok:
		return errOverloaded(err)
	case refusal.Final:
		return &Error{Status: s.set.BudgetExceededStatus, Type: "billing_error", Message: refusal.Message}
	case refusal.RetryAfter > 0:
		return &Error{Status: 429, Type: "rate_limit_error", Message: refusal.Message, RetryAfter: seconds(refusal.RetryAfter)}
	default:
		return &Error{Status: 429, Type: "rate_limit_error", Message: refusal.Message, RetryAfter: retrySoon}
	}
}

// seconds is a retry-after: at least 1 and at most 30, since Claude Code gives up
// on much more.
func seconds(d time.Duration) int { return min(max(1, int((d+time.Second-1)/time.Second)), 30) }

// ErrCut tells the edge to drop the connection: the answer began and cannot be
// ended properly, and a clean end would make half an answer look whole.
var ErrCut = errors.New("the answer was cut")

// The reasons for which a running request is ended from our side.
var (
	errIdle     = errors.New("idle")
	errTimeout  = errors.New("timeout")
	errShutdown = errors.New("shutdown")
)

// Reasons of stops that are not the state of a team.
const (
	Revoked    = "revoked"    // the key is no live key any more
	Unverified = "unverified" // the key service could not be asked for too long
)

// StopError is why the key service had a request stopped.
type StopError struct{ Reason string }

// Error returns the reason.
func (e *StopError) Error() string { return "stopped: " + e.Reason }
