package litellm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// edge stands before the gateway's mux and does what a contract cannot say.
type edge struct {
	mux    http.Handler
	api    litellmv1.LiteLLMServiceClient
	tokens []serve.Token
}

// Edge makes the handler of LiteLLM's routes. The mux has the gateway's, or none
// where administrators are not served; conn reaches the own gRPC server; tokens
// are those of administrators and services. It takes a credential from any of the
// headers that LiteLLM takes one from, serves a virtual key its own GET /key/info
// and POST /key/health, and refuses bodies that are no JSON object.
func Edge(mux http.Handler, conn grpc.ClientConnInterface, tokens []serve.Token) http.Handler {
	return &edge{mux: mux, api: litellmv1.NewLiteLLMServiceClient(conn), tokens: tokens}
}

// ServeHTTP implements http.Handler.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if query, err := url.QueryUnescape(r.URL.RawQuery); err == nil && !utf8.ValidString(query) || !utf8.ValidString(r.URL.Path) {
		writeProblem(w, http.StatusBadRequest, problem{Message: "the URL is not UTF-8", Type: invalidRequest, Param: "None"})
		return
	}
	given := proxy.KeyFrom(proxy.Header(r.Header))
	if !given.Empty() {
		r.Header.Set("Authorization", "Bearer "+given.Reveal())
	}
	if e.virtual(given) {
		switch r.Method + " " + r.URL.Path {
		case "GET /key/info":
			e.ownInfo(w, r)
			return
		case "POST /key/health":
			e.ownHealth(w, r)
			return
		}
	}
	if why, ok := unserved[r.URL.Path]; ok {
		writeProblem(w, http.StatusNotImplemented, problem{Message: why, Type: "not_implemented_error", Param: "None"})
		return
	}
	if r.Method == http.MethodPost && !readable(w, r) {
		return
	}
	e.mux.ServeHTTP(w, r)
}

// virtual says that a credential has the form of a virtual key and is not an
// administrator's.
func (e *edge) virtual(given secret.String) bool {
	return virtualkey.Valid(given.Reveal()) &&
		!slices.ContainsFunc(e.tokens, func(t serve.Token) bool { return t.Secret.Equal(given.Reveal()) })
}

func (e *edge) own(r *http.Request, key string) (*litellmv1.GetOwnKeyInfoResponse, error) {
	ctx := metadata.AppendToOutgoingContext(r.Context(),
		"authorization", r.Header.Get("Authorization"), "x-request-id", r.Header.Get("X-Request-Id"))
	return e.api.GetOwnKeyInfo(ctx, &litellmv1.GetOwnKeyInfoRequest{Key: key})
}

func (e *edge) ownInfo(w http.ResponseWriter, r *http.Request) {
	info, err := e.own(r, r.URL.Query().Get("key"))
	if err != nil {
		WriteError(r.Context(), nil, nil, w, r, err)
		return
	}
	doc, err := serve.JSON(true).Marshal(info)
	if err != nil {
		WriteError(r.Context(), nil, nil, w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, json.RawMessage(doc))
}

func (e *edge) ownHealth(w http.ResponseWriter, r *http.Request) {
	if _, err := e.own(r, ""); err != nil {
		WriteError(r.Context(), nil, nil, w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"key": "healthy", "logging_callbacks": nil})
}

const noMembers = "teams have no members here: whoever holds a key of the team spends for it"

// unserved are LiteLLM's routes that have no meaning here, and why.
var unserved = map[string]string{
	"/team/member_add":         noMembers,
	"/team/bulk_member_add":    noMembers,
	"/team/member_update":      noMembers,
	"/team/member_delete":      noMembers,
	"/team/permissions_list":   noMembers,
	"/team/permissions_update": noMembers,
	"/team/model/add":          "a team's models are set as a whole: POST /team/update with models",
	"/team/model/delete":       "a team's models are set as a whole: POST /team/update with models",
}

// readable reads a body and puts it back, with max_budget "" left out, which
// LiteLLM takes for null. What is no JSON object is answered here.
func readable(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		code := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			code = http.StatusRequestEntityTooLarge
		}
		writeProblem(w, code, problem{Message: "the request body could not be read whole", Type: invalidRequest, Param: "request_body"})
		return false
	}
	if len(bytes.TrimSpace(body)) == 0 {
		r.Body = http.NoBody
		return true
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
		writeProblem(w, http.StatusBadRequest, problem{Message: "the request body must be a JSON object", Type: invalidRequest, Param: "request_body"})
		return false
	}
	if string(doc["max_budget"]) == `""` {
		delete(doc, "max_budget")
		if body, err = json.Marshal(doc); err != nil {
			body = []byte(`{}`) // cannot happen: it was JSON before
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	return true
}
