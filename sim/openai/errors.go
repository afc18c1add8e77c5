package openai

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// Ways in which an answer ends early. Their texts are the ledger's Entry.Error.
var (
	errAborted     = errors.New("client_aborted")
	errCut         = errors.New("cut")
	errStalled     = errors.New("stalled")
	errStreamError = errors.New("stream_error")
	errFailed      = errors.New("failed")
)

// apiError is an answer in OpenAI's error shape.
type apiError struct {
	Status  int
	Message string
	Type    string // empty: the usual one for the status
	Param   string // empty: null
	Code    string // empty: null

	RetryAfter  int64  // seconds; zero: no header
	ShouldRetry string // empty: no header
	Body        string // "html" or "empty": not JSON at all
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s", e.Status, e.Message) }

// invalid is a request that is refused because of one of its parameters.
func invalid(param, code, format string, args ...any) error {
	return &apiError{Status: http.StatusBadRequest, Param: param, Code: code, Message: fmt.Sprintf(format, args...)}
}

func missing(param string) error {
	return invalid(param, "missing_required_parameter", "Missing required parameter: '%s'.", param)
}

// errorType is the usual type of an error of the API.
func errorType(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "requests"
	case status < http.StatusInternalServerError:
		return "invalid_request_error"
	}
	return "server_error"
}

// errorBody is the JSON of an HTTP error and of an error in a chat stream.
type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) detail() errorDetail {
	d := errorDetail{Message: e.Message, Type: e.Type, Param: nullable(e.Param), Code: nullable(e.Code)}
	if d.Type == "" {
		d.Type = errorType(e.Status)
	}
	return d
}

// nullable is nil for "", which JSON shows as null.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// write answers with e.
func (e *apiError) write(c *call) {
	h := c.w.Header()
	if e.ShouldRetry != "" {
		h.Set("x-should-retry", e.ShouldRetry)
	}
	if e.RetryAfter > 0 {
		h.Set("retry-after", strconv.FormatInt(e.RetryAfter, 10))
		h.Set("retry-after-ms", strconv.FormatInt(e.RetryAfter*1000, 10))
	}
	contentType, body := e.body()
	if contentType != "" {
		h.Set("content-type", contentType)
	}
	c.w.WriteHeader(e.Status)
	_, _ = c.Write(body) // the client is gone: nothing to do
}

func (e *apiError) body() (contentType string, body []byte) {
	switch e.Body {
	case "html":
		return "text/html", []byte("<html><body><h1>502 Bad Gateway</h1></body></html>")
	case "empty":
		return "", nil
	}
	body, err := encode(errorBody{e.detail()})
	if err != nil {
		return "", nil
	}
	return "application/json", body
}
