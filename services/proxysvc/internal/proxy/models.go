package proxy

import (
	"context"
	"io"
)

// CountTokens asks the upstream for the size of a request. It is never charged,
// needs no admission and is answered at a budget of zero.
func (s *Service) CountTokens(ctx context.Context, c Call, sink Sink) error {
	key, err := s.authenticate(ctx, c)
	if err != nil {
		return err
	}
	req, dep, err := s.route(key, c.Body)
	if err != nil {
		return err
	}
	resp, err := s.upstream.Send(ctx, UpstreamRequest{
		Deployment: dep, Path: "/v1/messages/count_tokens", Query: c.Query,
		Header: forUpstream(c.Header, c.Key), Body: req.WithModel(c.Body, dep.Model),
	})
	if err != nil {
		return errUpstream(err)
	}
	defer resp.Body.Close() // read to its end, or thrown away
	if resp.Status == 401 || resp.Status == 403 {
		return errCredential(resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return errUpstream(err)
	}
	return reply(sink, resp.Status, forClient(resp.Header, c.RequestID, dep.ID), body)
}

// Models lists the names that the call's key may use.
func (s *Service) Models(ctx context.Context, c Call) ([]string, error) {
	key, err := s.authenticate(ctx, c)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, name := range s.router.Names() {
		if key.mayUse(name) {
			names = append(names, name)
		}
	}
	return names, nil
}
