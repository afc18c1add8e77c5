package anthropic

import (
	"fmt"
	"net/http"
	"strconv"
)

// apiError is an answer in Anthropic's error shape.
type apiError struct {
	Status  int
	Type    string // empty: the usual one for the status
	Message string

	RetryAfter  int    // seconds; zero: no header
	ShouldRetry string // empty: the usual one for the status
	Body        string // "html" or "empty": not JSON at all
	Code        string // error.details.error_code; empty: no details
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s", e.Status, e.Message) }

func invalid(format string, args ...any) error {
	return &apiError{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func unauthenticated(message string) error {
	return &apiError{Status: http.StatusUnauthorized, Message: message}
}

// errorTypes are the error types of the API by status. A 4xx that the API does
// not list, such as 408, is an invalid_request_error, as its documentation says.
var errorTypes = map[int]string{
	400: "invalid_request_error",
	401: "authentication_error",
	402: "billing_error",
	403: "permission_error",
	404: "not_found_error",
	409: "conflict_error",
	413: "request_too_large",
	429: "rate_limit_error",
	504: "timeout_error",
	529: "overloaded_error",
}

func errorType(status int) string {
	if t, ok := errorTypes[status]; ok {
		return t
	}
	if status < http.StatusInternalServerError {
		return "invalid_request_error"
	}
	return "api_error"
}

// errorBody is the JSON of an HTTP error and of an error event.
type errorBody struct {
	Type      string      `json:"type"`
	Error     errorDetail `json:"error"`
	RequestID string      `json:"request_id,omitempty"`
}

type errorDetail struct {
	Type    string        `json:"type"`
	Message string        `json:"message"`
	Details *errorDetails `json:"details,omitempty"`
}

// errorDetails is what the SDKs' thread runners read to know what to do.
type errorDetails struct {
	ErrorCode string `json:"error_code"`
}

// write answers with e. x-should-retry is what the SDKs obey: they try again on
// 429 and 5xx unless told otherwise.
func (e *apiError) write(c *call) {
	h := c.w.Header()
	retry := e.ShouldRetry
	if retry == "" {
		retry = strconv.FormatBool(e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError)
	}
	h.Set("x-should-retry", retry)
	if e.RetryAfter > 0 {
		h.Set("retry-after", strconv.Itoa(e.RetryAfter))
	}
	contentType, body := e.body(c.requestID)
	if contentType != "" {
		var err error
		if body, err = c.prepare(contentType, body); err != nil {
			return
		}
	}
	c.w.WriteHeader(e.Status)
	_, _ = c.w.Write(body) // the client is gone: nothing to do
}

func (e *apiError) body(requestID string) (contentType string, body []byte) {
	switch e.Body {
	case "html":
		return "text/html", []byte("<html><body><h1>Bad gateway</h1></body></html>")
	case "empty":
		return "", nil
	}
	kind := e.Type
	if kind == "" {
		kind = errorType(e.Status)
	}
	detail := errorDetail{Type: kind, Message: e.Message}
	if e.Code != "" {
		detail.Details = &errorDetails{e.Code}
	}
	body, err := encode(errorBody{Type: "error", Error: detail, RequestID: requestID})
	if err != nil {
		return "", nil
	}
	return "application/json", body
}
