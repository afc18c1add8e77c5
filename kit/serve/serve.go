// Package serve runs a service: one gRPC server, reached over TCP and, through
// grpc-gateway and an in-memory listener, over HTTP; so every call, REST or
// gRPC, passes the same interceptors. It serves health, readiness, metrics and
// the OpenAPI document, and it drains on shutdown.
//
// It is the only place that turns errors into gRPC codes.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/proliferate-ai/llm-proxy/kit/serve/lean"
)

// Options are what a service gives its server besides its Config.
type Options struct {
	Log      *zap.Logger
	Registry *prometheus.Registry
	// OpenAPI is served at /openapi.json.
	OpenAPI []byte
	// Ready says whether the service can do its work now; nil: always.
	Ready func(context.Context) error
	// MuxOptions add to, or replace, those of NewMux.
	MuxOptions []runtime.ServeMuxOption
	// OwnAuth lists full method names that authenticate by themselves, with a
	// virtual key.
	OwnAuth []string
	// Allow lists, by scope, the full names of the methods that a token of that
	// scope may call. A token without a scope may call everything.
	Allow map[Scope][]string
	// Hot has the handlers of POST routes, by path, that are called so often that
	// package lean serves them. They pass neither Handle's handler nor LimitBody;
	// what lean does not take for its own does, so both must answer alike.
	Hot map[string]http.Handler
}

// Server is a service's server. Register services on GRPC and gateway handlers
// on Mux through Conn, then call Run once.
type Server struct {
	cfg      Config
	opt      Options
	guard    *guard
	grpc     *grpc.Server
	health   *health.Server
	mux      *runtime.ServeMux
	handler  http.Handler
	http     *lean.Server
	grpcLis  net.Listener
	httpLis  net.Listener
	pipe     *bufconn.Listener
	conn     *grpc.ClientConn
	draining chan struct{}
}

// New listens on both addresses, so that a port in use is found before anything
// is started.
func New(cfg Config, opt Options) (*Server, error) {
	s := &Server{cfg: cfg, opt: opt, draining: make(chan struct{}), pipe: bufconn.Listen(1 << 20), health: health.NewServer()}
	var err error
	if s.grpcLis, err = net.Listen("tcp", cfg.GRPCListen); err != nil {
		return nil, fmt.Errorf("%s wants %s for gRPC: %w", cfg.Name, cfg.GRPCListen, err)
	}
	if s.httpLis, err = net.Listen("tcp", cfg.HTTPListen); err != nil {
		return nil, errors.Join(fmt.Errorf("%s wants %s for HTTP: %w", cfg.Name, cfg.HTTPListen, err), s.grpcLis.Close())
	}
	s.guard = newGuard(cfg, opt)
	chain := newChain(cfg, opt, s.guard)
	if id := cfg.Caller.Identity; id != nil {
		id.observe(cfg.Name, opt)
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(cfg.Caller.Identity.transport()),
		grpc.ChainUnaryInterceptor(chain.observeUnary, chain.recoverUnary, chain.authUnary),
		grpc.ChainStreamInterceptor(chain.observeStream, chain.recoverStream, chain.authStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
	)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.conn, err = grpc.NewClient("passthrough:///self", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.pipe.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial own server: %w", err), s.grpcLis.Close(), s.httpLis.Close())
	}
	s.mux = NewMux(opt.MuxOptions...)
	s.handler = LimitBody(s.mux)
	return s, nil
}

// maxMessage fits a request body of 32 MB with its envelope.
const maxMessage = 33 << 20

// GRPC is where services are registered.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Mux is where gateway handlers are registered.
func (s *Server) Mux() *runtime.ServeMux { return s.mux }

// Conn reaches the own gRPC server through every interceptor; gateway handlers
// use it.
func (s *Server) Conn() *grpc.ClientConn { return s.conn }

// Handle replaces LimitBody(Mux) as the handler of everything that is not health, metrics
// or the OpenAPI document.
func (s *Server) Handle(h http.Handler) { s.handler = h }

// Draining is closed when the server starts to drain. Calls without an end of
// their own, such as watches, must then return.
func (s *Server) Draining() <-chan struct{} { return s.draining }

// GRPCAddr is the address that was bound.
func (s *Server) GRPCAddr() string { return s.grpcLis.Addr().String() }

// HTTPAddr is the address that was bound.
func (s *Server) HTTPAddr() string { return s.httpLis.Addr().String() }

// Run serves until ctx ends, then drains: not ready, a short wait, HTTP
// shutdown, graceful gRPC stop, all within Config.Drain. It returns nil after a
// clean drain, and an error when calls had to be ended.
func (s *Server) Run(ctx context.Context) error {
	errorLog, _ := zap.NewStdLogAt(s.opt.Log, zap.ErrorLevel) // panics of plain handlers; the level is a known one
	s.http = lean.New(&http.Server{
		Handler:           s.edge(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    1 << 16,
		ErrorLog:          errorLog,
	}, s.opt.Hot)
	fail := make(chan error, 3)
	go func() { fail <- s.grpc.Serve(s.pipe) }()
	go func() { fail <- s.grpc.Serve(s.grpcLis) }()
	go func() { fail <- s.http.Serve(s.httpLis) }()
	s.opt.Log.Info("serving", zap.String("grpc_addr", s.GRPCAddr()), zap.String("http_addr", s.HTTPAddr()))
	select {
	case <-ctx.Done():
		return s.drain(context.WithoutCancel(ctx))
	case err := <-fail:
		return errors.Join(fmt.Errorf("serve %s: %w", s.cfg.Name, err), s.drain(context.WithoutCancel(ctx)))
	}
}

func (s *Server) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Drain)
	defer cancel()
	close(s.draining)
	s.health.Shutdown()
	select {
	case <-time.After(s.cfg.DrainWait):
	case <-ctx.Done():
	}
	err := s.http.Shutdown(ctx)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, s.grpc.Stop)
	defer stop()
	go func() { s.grpc.GracefulStop(); close(stopped) }()
	<-stopped
	if ctx.Err() != nil {
		err = fmt.Errorf("what still ran after %s was ended", s.cfg.Drain)
	}
	err = errors.Join(err, s.conn.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("drain %s: %w", s.cfg.Name, err), s.http.Close())
	}
	s.opt.Log.Info("drained")
	return nil
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}
