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
	Error problem `json:"error"`
}

type problem struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	Param   string `json:"param"`
	Code    string `json:"code"` // the HTTP status, as a string
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
func WriteError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	st := status.Convert(err)
	code := runtime.HTTPStatusFromCode(st.Code())
	p := problem{Message: st.Message(), Param: "None", Type: types[code]}
	switch st.Code() {
	case codes.AlreadyExists:
		code, p.Param, p.Type = http.StatusBadRequest, "key_alias", types[http.StatusBadRequest] // nothing else is unique here
	case codes.Unauthenticated:
		p.Message = "Authentication Error, Invalid proxy server token passed. A master key is needed in `Authorization: Bearer`."
	case codes.InvalidArgument:
		if unread(ctx) {
			p.Type = invalidRequest
		}
	}
	if p.Type == "" {
		p.Type = "internal_error"
	}
	writeProblem(w, code, p)
}

// invalidRequest is the type of a body that is not of the route's form.
const invalidRequest = "invalid_request_error"

// unread says that the gateway itself refused a request, which it could not read
// as the route's message: an answer of the service has trailers.
func unread(ctx context.Context) bool {
	md, ok := runtime.ServerMetadataFromContext(ctx)
	return ok && md.HeaderMD == nil && md.TrailerMD == nil
}

// WriteRoutingError answers what is no route, as LiteLLM does.
func WriteRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, code int) {
	writeJSON(w, code, map[string]string{"detail": http.StatusText(code)})
}

func writeProblem(w http.ResponseWriter, code int, p problem) {
	p.Code = strconv.Itoa(code)
	writeJSON(w, code, envelope{p})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // the client is gone
}
