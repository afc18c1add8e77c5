package rpc

import (
	"context"

	"google.golang.org/grpc"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/watch"
)

// Feed is where the changes come from.
type Feed interface {
	Watch(ctx context.Context, r watch.Request, send func(watch.Message) error) error
}

// WatchKeys implements KeyService.
func (s *KeyServer) WatchKeys(req *keysv1.WatchKeysRequest, stream grpc.ServerStreamingServer[keysv1.WatchKeysResponse]) error {
	r := watch.Request{After: req.GetAfterRevision(), Stop: s.draining}
	return s.feed.Watch(stream.Context(), r, func(m watch.Message) error {
		return stream.Send(&keysv1.WatchKeysResponse{
			Revision: m.Revision, KeyIds: m.KeyIDs, TeamIds: m.TeamIDs,
			Stopped: m.Stopped, Reason: m.Reason, Heartbeat: m.Heartbeat,
		})
	})
}
