package autumn

import (
	"errors"
	"fmt"
	"net/http"
)

// apiError is an answer in Autumn's error shape.
type apiError struct {
	Status  int
	Code    string
	Message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

func invalidInputs(format string, args ...any) error {
	return &apiError{Status: http.StatusBadRequest, Code: "invalid_inputs", Message: fmt.Sprintf(format, args...)}
}

func errorf(status int, code, format string, args ...any) error {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

type errorBody struct {
	Message string `json:"message"`
	Code    string `json:"code"`
	Env     string `json:"env"`
}

// failure is the answer to err. Unexpected errors are 500 internal_error and,
// as at Autumn, echo their text.
func (s *Server) failure(err error) reply {
	apiErr, ok := errors.AsType[*apiError](err)
	if !ok {
		apiErr = &apiError{Status: http.StatusInternalServerError, Code: "internal_error", Message: err.Error()}
	}
	return reply{apiErr.Status, errorBody{apiErr.Message, apiErr.Code, s.opts.Env}}
}
