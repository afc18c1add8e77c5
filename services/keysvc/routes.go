package keysvc

import (
	"context"
	"fmt"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/rpc"
)

// register puts both services on gRPC and REST.
func register(ctx context.Context, srv *serve.Server, keys *rpc.KeyServer, teams *rpc.TeamServer) error {
	keysv1.RegisterKeyServiceServer(srv.GRPC(), keys)
	keysv1.RegisterTeamServiceServer(srv.GRPC(), teams)
	if err := keysv1.RegisterKeyServiceHandler(ctx, srv.Mux(), srv.Conn()); err != nil {
		return fmt.Errorf("register KeyService's routes: %w", err)
	}
	if err := keysv1.RegisterTeamServiceHandler(ctx, srv.Mux(), srv.Conn()); err != nil {
		return fmt.Errorf("register TeamService's routes: %w", err)
	}
	return nil
}
