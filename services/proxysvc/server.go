package proxysvc

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/proliferate-ai/llm-proxy/gen"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
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
	messages := web.New(p.svc, p.telemetry.failed)
	srv, err := serve.New(cfg.Serve, serve.Options{
		Log: p.telemetry.log, Registry: p.telemetry.registry, OpenAPI: gen.OpenAPI, OwnAuth: rpc.OwnAuth(),
		Ready:      p.ready,
		MuxOptions: []runtime.ServeMuxOption{runtime.WithRoutingErrorHandler(routingError(messages))},
	})
	if err != nil {
		return nil, nil, err
	}
	proxyv1.RegisterProxyServiceServer(srv.GRPC(), rpc.NewProxy(p.svc, p.db))
	proxyv1.RegisterSpendServiceServer(srv.GRPC(), rpc.NewSpend(p.db))
	litellmv1.RegisterLiteLLMServiceServer(srv.GRPC(),
		litellm.New(keysv1.NewKeyServiceClient(p.keysvc), keysv1.NewTeamServiceClient(p.keysvc), p.db))

	// Calls for keysvc pass with the caller's own credential only.
	anonymous, err := serve.Dial(cfg.KeysvcTarget, secret.String{})
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
		facade.HandlePath(http.MethodGet, "/health/liveness", alive))
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	srv.Handle(byPrefix(facade, srv.Mux()))
	return srv, closeAll, nil
}

// mountMessages puts Anthropic's routes on the mux; also below /v1/v1, for
// clients whose base URL already ends in /v1.
func mountMessages(mux *runtime.ServeMux, h *web.Handler) error {
	var errs []error
	for _, prefix := range []string{"/v1", "/v1/v1"} {
		for _, route := range []struct {
			method, path string
			handle       http.HandlerFunc
		}{
			{http.MethodPost, "/messages", h.CreateMessage},
			{http.MethodPost, "/messages/count_tokens", h.CountTokens},
			{http.MethodGet, "/models", h.Models},
		} {
			errs = append(errs, mux.HandlePath(route.method, prefix+route.path,
				func(w http.ResponseWriter, r *http.Request, _ map[string]string) { route.handle(w, r) }))
		}
	}
	return errors.Join(errs...)
}

// facadePrefixes are where LiteLLM's routes begin.
var facadePrefixes = []string{"/key/", "/team/", "/user/", "/spend/", "/global/", "/model/", "/health/"}

func byPrefix(facade, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range facadePrefixes {
			if strings.HasPrefix(r.URL.Path, p) {
				facade.ServeHTTP(w, r)
				return
			}
		}
		rest.ServeHTTP(w, r)
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
