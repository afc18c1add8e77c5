package proxysvc

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/proliferate-ai/llm-proxy/gen"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/litellm"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/web"
)

type parts struct {
	telemetry *telemetry
	db        *store.Store
	svc       *proxy.Service
	writer    *ledger.Writer
	verifier  *keys.Client
	keysvc    *grpc.ClientConn
}

// newServer puts every route in its place: the gRPC services with their REST
// routes, Anthropic's routes on the same mux, LiteLLM's on one of their own,
// since their errors and their JSON differ.
func newServer(ctx context.Context, cfg Config, p parts) (*serve.Server, func(), error) {
	messages := web.New(p.svc, cfg.Web, p.telemetry.failed)
	srv, err := serve.New(cfg.Serve, serve.Options{
		Log: p.telemetry.log, Registry: p.telemetry.registry, OpenAPI: gen.OpenAPI,
		OwnAuth: slices.Concat(rpc.OwnAuth(), litellm.OwnAuth()), Allow: allowed(),
		Ready:      p.ready,
		MuxOptions: []runtime.ServeMuxOption{runtime.WithRoutingErrorHandler(routingError(messages))},
		Hot:        hot(messages),
	})
	if err != nil {
		return nil, nil, err
	}
	sessions := keysv1.NewKeyServiceClient(serve.Onward{ClientConnInterface: p.keysvc})
	proxyv1.RegisterProxyServiceServer(srv.GRPC(), rpc.NewProxy(p.svc, p.db, sessions, cfg.Keys.Trust, cfg.Serve.TrustedProxies))
	proxyv1.RegisterSpendServiceServer(srv.GRPC(), rpc.NewSpend(p.db, cfg.Prices, ledger.NewCorrector(p.db.Rows, p.db.Find, p.writer)))
	litellmv1.RegisterLiteLLMServiceServer(srv.GRPC(),
		litellm.New(litellm.Parts{Keysvc: p.keysvc, Ledger: p.db, Models: p.svc, Verifier: p.verifier}))

	// Calls for keysvc pass with the caller's own credential only.
	anonymous, err := cfg.Serve.Caller.DialForOthers(cfg.KeysvcTarget)
	if err != nil {
		return nil, nil, err
	}
	closeAll := func() { anonymous.Close() } // nothing is lost
	facade := serve.NewMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, serve.JSON(true)),
		runtime.WithErrorHandler(litellm.WriteError), runtime.WithRoutingErrorHandler(litellm.WriteRoutingError))
	if cfg.AdminRoutes {
		err = errors.Join(
			proxyv1.RegisterProxyServiceHandler(ctx, srv.Mux(), srv.Conn()),
			proxyv1.RegisterSpendServiceHandler(ctx, srv.Mux(), srv.Conn()),
			keysv1.RegisterKeyServiceHandler(ctx, srv.Mux(), anonymous),
			keysv1.RegisterTeamServiceHandler(ctx, srv.Mux(), anonymous),
			litellmv1.RegisterLiteLLMServiceHandler(ctx, facade, srv.Conn()))
	}
	err = errors.Join(err,
		mountMessages(srv.Mux(), messages), // later routes win: ProxyService's own take the detour through protobuf
		facade.HandlePath(http.MethodGet, "/health/liveliness", alive),
		facade.HandlePath(http.MethodGet, "/health/liveness", alive),
		facade.HandlePath(http.MethodGet, "/health/readiness", p.readiness(srv)))
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	srv.Handle(byPath(litellm.Edge(facade, srv.Conn(), cfg.Serve.Tokens), srv.Mux()))
	return srv, closeAll, nil
}

// allowed says what the scopes of admin tokens mean here. A gateway issues keys and
// ends sessions, finance reads.
func allowed() map[serve.Scope][]string {
	reads := []string{"Get", "List", "Read", "Audit", "Calculate"}
	issues := []string{"GenerateKey", "GenerateServiceAccountKey", "CheckKeyHealth", "DeleteKey", "RegenerateKey", "NewTeam", "GetTeamInfo", "GetKeyInfo", "EndSession"}
	out := map[serve.Scope][]string{}
	for _, service := range []grpc.ServiceDesc{
		proxyv1.ProxyService_ServiceDesc, proxyv1.SpendService_ServiceDesc, litellmv1.LiteLLMService_ServiceDesc,
	} {
		for _, m := range service.Methods {
			full := "/" + service.ServiceName + "/" + m.MethodName
			if slices.ContainsFunc(reads, func(prefix string) bool { return strings.HasPrefix(m.MethodName, prefix) }) {
				out[serve.Read] = append(out[serve.Read], full)
			}
			if slices.Contains(issues, m.MethodName) {
				out[serve.Issue] = append(out[serve.Issue], full)
			}
		}
	}
	return out
}

// roots are where the routes of Anthropic's and OpenAI's clients begin: below
// /v1, below /v1/v1 for clients whose base URL already ends in /v1, and below
// nothing, as LiteLLM has them.
var roots = []string{"", "/v1", "/v1/v1"}

// posts are the routes that carry the traffic.
func posts(h *web.Handler) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/messages":              h.CreateMessage,
		"/messages/count_tokens": h.CountTokens,
		"/chat/completions":      h.ChatCompletions,
		"/responses":             h.Responses,
	}
}

// hot are the same routes for serve.Options: most requests never see a mux.
func hot(h *web.Handler) map[string]http.Handler {
	routes := map[string]http.Handler{}
	for _, prefix := range roots {
		for path, handle := range posts(h) {
			routes[prefix+path] = handle
		}
	}
	return routes
}

// mountMessages puts the routes of Anthropic's and OpenAI's clients on the mux.
func mountMessages(mux *runtime.ServeMux, h *web.Handler) error {
	var errs []error
	for _, prefix := range roots {
		// An id may hold slashes, or nothing: the list, which comes later, wins then.
		errs = append(errs, mux.HandlePath(http.MethodGet, prefix+"/models/{id=**}",
			func(w http.ResponseWriter, r *http.Request, path map[string]string) { h.Model(w, r, path["id"]) }))
		mount := func(method, path string, handle http.HandlerFunc) {
			errs = append(errs, mux.HandlePath(method, prefix+path,
				func(w http.ResponseWriter, r *http.Request, _ map[string]string) { handle(w, r) }))
		}
		mount(http.MethodGet, "/models", h.Models)
		for path, handle := range posts(h) {
			mount(http.MethodPost, path, handle)
		}
	}
	return errors.Join(errs...)
}

// facadePrefixes are where LiteLLM's routes begin.
var facadePrefixes = []string{
	"/key/", "/v2/key/", "/team/", "/v2/team/", "/user/", "/tag/", "/spend/", "/global/", "/model/", "/v1/model/info", "/health",
}

// largeBodies are where paths end whose handlers bound the body themselves.
var largeBodies = []string{"/messages", "/messages/count_tokens", "/chat/completions", "/responses"}

func byPath(facade, mux http.Handler) http.Handler {
	facade, limited := serve.LimitBody(facade), serve.LimitBody(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		starts := func(prefix string) bool { return strings.HasPrefix(r.URL.Path, prefix) }
		ends := func(suffix string) bool { return strings.HasSuffix(r.URL.Path, suffix) }
		switch {
		case slices.ContainsFunc(facadePrefixes, starts):
			facade.ServeHTTP(w, r)
		case slices.ContainsFunc(largeBodies, ends):
			mux.ServeHTTP(w, r)
		default:
			limited.ServeHTTP(w, r)
		}
	})
}

func routingError(h *web.Handler) runtime.RoutingErrorHandlerFunc {
	return func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
		if status == http.StatusMethodNotAllowed {
			h.MethodNotAllowed(w, r)
			return
		}
		h.NotFound(w, r)
	}
}

// alive is LiteLLM's GET /health/liveliness.
func alive(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte(`"I'm alive!"`)) //nolint:errcheck // the client is gone
}

// readiness is LiteLLM's GET /health/readiness.
func (p parts) readiness(srv *serve.Server) runtime.HandlerFunc {
	h := &litellm.Readiness{Ready: p.ready, Draining: srv.Draining(), Ping: func(ctx context.Context) error {
		_, err := p.db.LedgerID(ctx)
		return err
	}}
	return func(w http.ResponseWriter, r *http.Request, _ map[string]string) { h.ServeHTTP(w, r) }
}

// ready says whether the replica has ever been able to do its work. It does not
// follow the database: when that is away, every replica answers with a clear
// error, and taking all of them out of the load balancer would only hide it.
func (p parts) ready(ctx context.Context) error {
	select {
	case <-p.writer.Ready():
	case <-ctx.Done():
		return errors.New("no log is open")
	}
	select {
	case <-p.verifier.Ready():
		return nil
	case <-ctx.Done():
		return errors.New("keysvc has not answered")
	}
}
