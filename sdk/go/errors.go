package llmproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrDisabled says that there is no proxy to ask: LLM_PROXY_URL is not set.
var ErrDisabled = errors.New("there is no LLM proxy: LLM_PROXY_URL is not set")

// Error is a call that failed at the proxy or on the way to it. Its text holds no
// secret.
type Error struct {
	// Op is what was done, such as "issue a session key".
	Op string
	// Status is the proxy's HTTP status. Zero: no answer arrived.
	Status int
	// Message is what the proxy says, or how the way to it failed.
	Message string
	// Retryable says that the same call may succeed later. Such calls were repeated
	// already, as far as that is safe.
	Retryable bool

	cause error
}

// Error says what failed, and why.
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %s", e.Op, e.Message)
	}
	return fmt.Sprintf("%s: HTTP %d: %s", e.Op, e.Status, e.Message)
}

// Unwrap returns the cause, such as context.DeadlineExceeded, or nil.
func (e *Error) Unwrap() error { return e.cause }

const aborted = 10 // gRPC's code of what changed meanwhile and may be tried again

// refusal makes an Error of an answer that is not 2xx. Its body is ours
// ({"code", "message"}) or LiteLLM's ({"error": {"message"}}).
func refusal(op string, resp *http.Response, body []byte, secrets ...Secret) *Error {
	var doc struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Error   struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	e := &Error{Op: op, Status: resp.StatusCode}
	if json.Unmarshal(body, &doc) == nil { // else it comes from something in between
		e.Message = redact(doc.Message+doc.Error.Message, secrets...)
	}
	if e.Message == "" {
		e.Message = strings.ToLower(http.StatusText(resp.StatusCode))
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Retryable = true
	case http.StatusConflict:
		e.Retryable = doc.Code == aborted
	}
	switch resp.Header.Get("x-should-retry") {
	case "true":
		e.Retryable = true
	case "false":
		e.Retryable = false
	}
	return e
}
