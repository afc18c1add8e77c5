package rpc

import (
	"context"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
)

// ReleaseReconciliation gives back a leased team that could not be read.
func (s *Server) ReleaseReconciliation(ctx context.Context, req *billingsvcv1.ReleaseReconciliationRequest) (*billingsvcv1.ReleaseReconciliationResponse, error) {
	after, err := milliseconds(req.GetRetryAfterMs())
	if err != nil {
		return nil, err
	}
	if err := s.svc.Release(ctx, req.GetTeamId(), req.GetLeaseToken(), after); err != nil {
		return nil, err
	}
	return &billingsvcv1.ReleaseReconciliationResponse{}, nil
}
