// Package outboxsvc is the outbox service: it posts billing's charges to
// Autumn, or to Stripe's meters, once each in effect, and reads balances there
// for billing. It keeps nothing of its own; billingsvc holds the charges and what
// became of them.
package outboxsvc

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/proliferate-ai/llm-proxy/gen"
	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/autumn"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/stripe"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/teams"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/webhook"
)

// Run serves until ctx ends and drains: posts under way are finished and
// settled.
func Run(ctx context.Context, cfg Config) error {
	log := serve.Logger(cfg.Serve)
	reg := serve.NewRegistry()
	conn, err := cfg.Serve.Caller.Dial(cfg.BillingsvcTarget)
	if err != nil {
		return fmt.Errorf("BILLINGSVC_TARGET: %w", err)
	}
	defer conn.Close() // nothing is lost
	var keysvc *grpc.ClientConn
	if cfg.KeysvcTarget != "" {
		if keysvc, err = cfg.Serve.Caller.Dial(cfg.KeysvcTarget); err != nil {
			return fmt.Errorf("KEYSVC_TARGET: %w", err)
		}
		defer keysvc.Close() // nothing is lost
	}
	sink := newSink(cfg, keysvc)
	if !sink.Configured() {
		log.Warn("the sink has no key; charges wait", zap.String("sink", cfg.Sink))
	}
	l := newLoop(log, reg)
	svc := relay.New(billing.New(conn), sink, relay.Options{
		Worker: worker(), Concurrency: cfg.Concurrency, PostRate: cfg.PostRate, ReadRate: cfg.ReadRate, Now: cfg.Now,
		Observe: l.observe, Read: l.read, Bought: l.bought, Halted: l.halted,
	})
	l.watch(reg, svc)
	hooks, err := webhook.New(webhook.Options{Secrets: cfg.WebhookSecrets, Nudge: svc.Nudge, Taken: l.hooked})
	if err != nil {
		return fmt.Errorf("AUTUMN_WEBHOOK_SECRET: %w", err)
	}

	srv, err := serve.New(cfg.Serve, serve.Options{Log: log, Registry: reg, OpenAPI: gen.OpenAPI, Allow: rpc.Allow()})
	if err != nil {
		return err
	}
	outboxsvcv1.RegisterOutboxServiceServer(srv.GRPC(), rpc.New(svc, cfg.Sink, l.hooks))
	if err := outboxsvcv1.RegisterOutboxServiceHandler(ctx, srv.Mux(), srv.Conn()); err != nil {
		return fmt.Errorf("register gateway: %w", err)
	}
	if len(cfg.WebhookSecrets) > 0 {
		mux := http.NewServeMux()
		mux.Handle("POST "+webhook.Path, hooks)
		mux.Handle("/", srv.Mux())
		srv.Handle(serve.LimitBody(mux))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return l.Run(ctx, svc, cfg.Interval) })
	g.Go(func() error { return l.RunReads(ctx, svc, cfg.ReconcileInterval) })
	g.Go(func() error { return l.RunTopUps(ctx, svc, cfg.ReconcileInterval) })
	return g.Wait()
}

// newSink makes the sink that is chosen. Without a connection to keysvc its
// customers are called by their ids.
func newSink(cfg Config, keysvc *grpc.ClientConn) relay.Sink {
	if cfg.Sink == sinkStripe {
		if keysvc != nil {
			names := teams.New(keysvc)
			cfg.Stripe.Name = func(ctx context.Context, teamID string) (string, error) {
				p, err := names.Profile(ctx, teamID)
				return p.Name, err
			}
		}
		return stripe.New(cfg.Stripe)
	}
	if keysvc != nil {
		cfg.Autumn.Teams = teams.New(keysvc)
	}
	return autumn.New(cfg.Autumn)
}

// worker names this process in billing's records.
func worker() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("outboxsvc/%.100s/%d", host, os.Getpid())
}
