// Package outboxsvc is the outbox service: it posts billing's charges to
// Autumn, once each in effect. It keeps nothing of its own; billingsvc holds
// the charges and what became of them.
package outboxsvc

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/gen"
	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/autumn"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/rpc"
)

// Run serves until ctx ends and drains: posts under way are finished and
// settled.
func Run(ctx context.Context, cfg Config) error {
	log := serve.Logger(cfg.Serve)
	reg := serve.NewRegistry()
	conn, err := serve.Dial(cfg.BillingsvcTarget, cfg.Serve.ServiceToken)
	if err != nil {
		return fmt.Errorf("BILLINGSVC_TARGET: %w", err)
	}
	defer conn.Close() // nothing is lost

	var sink relay.Sink
	if cfg.Autumn.Key.Empty() {
		log.Warn("no sink: AUTUMN_API_KEY is not set; charges wait")
	} else {
		sink = autumn.New(cfg.Autumn)
	}
	l := newLoop(log, reg)
	svc := relay.New(billing.New(conn), sink, relay.Options{
		Worker: worker(), Concurrency: cfg.Concurrency, Observe: l.observe,
	})

	srv, err := serve.New(cfg.Serve, serve.Options{Log: log, Registry: reg, OpenAPI: gen.OpenAPI})
	if err != nil {
		return err
	}
	outboxsvcv1.RegisterOutboxServiceServer(srv.GRPC(), rpc.New(svc))
	if err := outboxsvcv1.RegisterOutboxServiceHandler(ctx, srv.Mux(), srv.Conn()); err != nil {
		return fmt.Errorf("register gateway: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return l.Run(ctx, svc, cfg.Interval) })
	return g.Wait()
}

// worker names this process in billing's records.
func worker() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("outboxsvc/%.100s/%d", host, os.Getpid())
}
