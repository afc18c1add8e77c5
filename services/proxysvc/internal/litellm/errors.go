package litellm

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// envelope is LiteLLM's error body:
// {"error":{"message":"…","type":"…","param":"None","code":"401"}}.
type envelope struct {
	Error struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Param   string `json:"param"`
		Code    string `json:"code"` // the HTTP status, as a string
	} `json:"error"`
}

// types are LiteLLM's error types by status.
var types = map[int]string{
	http.StatusBadRequest:          "bad_request_error",
	http.StatusUnauthorized:        "auth_error",
	http.StatusForbidden:           "auth_error",
	http.StatusNotFound:            "not_found_error",
	http.StatusTooManyRequests:     "throttling_error",
	http.StatusServiceUnavailable:  "no_db_connection",
	http.StatusInternalServerError: "internal_server_error",
}

// WriteError is the gateway's error handler for LiteLLM's routes. What already
// exists is 400 there, and so is a request that is not right.
func WriteError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	st := status.Convert(err)
	code := runtime.HTTPStatusFromCode(st.Code())
	message, param := st.Message(), "None"
	switch st.Code() {
	case codes.AlreadyExists:
		code, param = http.StatusBadRequest, "key_alias" // nothing else is unique here
	case codes.Unauthenticated:
		message = "Authentication Error, Invalid proxy server token passed. A master key is needed in `Authorization: Bearer`."
	}
	var body envelope
	body.Error.Message, body.Error.Type, body.Error.Param, body.Error.Code = message, types[code], param, strconv.Itoa(code)
	if body.Error.Type == "" {
		body.Error.Type = "internal_error"
	}
	writeJSON(w, code, body)
}

// WriteRoutingError answers what is no route, as LiteLLM does.
func WriteRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, code int) {
	writeJSON(w, code, map[string]string{"detail": http.StatusText(code)})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // the client is gone
}
