package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/id"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// OwnAuth lists the methods that take a virtual key instead of a master key.
func OwnAuth() []string {
	return []string{
		proxyv1.ProxyService_CreateMessage_FullMethodName,
		proxyv1.ProxyService_CountTokens_FullMethodName,
		proxyv1.ProxyService_ListModels_FullMethodName,
	}
}

// Proxy implements ProxyService through the same pipeline as the HTTP routes.
type Proxy struct {
	proxyv1.UnimplementedProxyServiceServer
	svc    *proxy.Service
	ledger Reader
	keys   keysv1.KeyServiceClient
	trust  time.Duration
	// proxies say where a caller is that comes through them.
	proxies serve.Proxies
}

// NewProxy makes the service. trust is how long replicas may go on taking a key
// that they were not told of.
func NewProxy(svc *proxy.Service, r Reader, keys keysv1.KeyServiceClient, trust time.Duration, proxies serve.Proxies) *Proxy {
	return &Proxy{svc: svc, ledger: r, keys: keys, trust: trust, proxies: proxies}
}

const (
	// patience is how long EndSession waits for requests to be settled.
	patience = 10 * time.Second
	// admission is how long EndSession gives a request from when its key was taken
	// until it is on the ledger. While Postgres is slow it may take up to
	// AdmitTimeout; such a request is charged, but not in the answer.
	admission = 500 * time.Millisecond
)

// EndSession implements ProxyService. Revoking the keys ends their streams on
// every replica; each settles its own. Where a key was live, a replica may have
// taken a request with it that is not on the ledger yet.
func (p *Proxy) EndSession(ctx context.Context, r *proxyv1.EndSessionRequest) (*proxyv1.EndSessionResponse, error) {
	if r.GetUserId() == "" {
		return nil, fault.Errorf(fault.Invalid, "user_id is required")
	}
	revoked, err := p.keys.RevokeKeys(ctx, &keysv1.RevokeKeysRequest{UserId: r.GetUserId()})
	if err != nil && status.Code(err) != codes.NotFound {
		return nil, err
	}
	sure := time.Now()
	if len(revoked.GetKeys()) > 0 {
		sure = sure.Add(p.trust + admission)
	}
	all, err := p.keys.ListKeys(ctx, &keysv1.ListKeysRequest{UserId: r.GetUserId(), IncludeEnded: true, IncludeTotal: true, PageSize: 1})
	if err != nil {
		return nil, err
	}
	sum, err := p.settled(ctx, r.GetUserId(), sure)
	if err != nil {
		return nil, err
	}
	return &proxyv1.EndSessionResponse{
		Keys: int32(all.GetTotalCount()), Requests: sum.Requests, CostNanoUsd: int64(sum.Spent), OpenRequests: sum.OpenRequests,
	}, nil
}

// settled waits until no request of a session is open at an instant after sure, or
// patience is over.
func (p *Proxy) settled(ctx context.Context, userID string, sure time.Time) (ledger.Summary, error) {
	end := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		sum, err := p.ledger.Summary(ctx, ledger.AccountID{Kind: ledger.KindUser, ID: userID})
		if err != nil || sum.OpenRequests == 0 && !now.Before(sure) || now.After(end) {
			return sum, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sum, ctx.Err()
		}
	}
}

// CreateMessage implements ProxyService.
func (p *Proxy) CreateMessage(r *proxyv1.CreateMessageRequest, stream grpc.ServerStreamingServer[proxyv1.CreateMessageResponse]) error {
	c := p.call(stream.Context(), "/v1/messages", r.GetBody(), r.GetAnthropicVersion(), r.GetAnthropicBeta())
	sink := newSink(func(b *httpbody.HttpBody) error { return stream.Send(&proxyv1.CreateMessageResponse{Body: b}) })
	err := p.svc.CreateMessage(stream.Context(), c, sink)
	if sink.status != "" {
		stream.SetTrailer(metadata.Pairs("x-http-status", sink.status))
	}
	return toFault(err)
}

// CountTokens implements ProxyService.
func (p *Proxy) CountTokens(ctx context.Context, r *proxyv1.CountTokensRequest) (*proxyv1.CountTokensResponse, error) {
	c := p.call(ctx, "/v1/messages/count_tokens", r.GetBody(), r.GetAnthropicVersion(), r.GetAnthropicBeta())
	resp := &proxyv1.CountTokensResponse{}
	err := p.svc.CountTokens(ctx, c, newSink(func(b *httpbody.HttpBody) error {
		resp.Body = b
		return nil
	}))
	if err != nil {
		return nil, toFault(err)
	}
	return resp, nil
}

// ListModels implements ProxyService.
func (p *Proxy) ListModels(ctx context.Context, _ *proxyv1.ListModelsRequest) (*proxyv1.ListModelsResponse, error) {
	names, err := p.svc.Models(ctx, p.call(ctx, "/v1/models", nil, "", nil))
	if err != nil {
		return nil, toFault(err)
	}
	resp := &proxyv1.ListModelsResponse{}
	for _, n := range names {
		resp.Models = append(resp.Models, &proxyv1.Model{Id: n, DisplayName: n})
	}
	return resp, nil
}

// ListOpenRequests implements ProxyService.
func (p *Proxy) ListOpenRequests(ctx context.Context, r *proxyv1.ListOpenRequestsRequest) (*proxyv1.ListOpenRequestsResponse, error) {
	limit, err := pageSize(r.GetPageSize(), 100, 1000)
	if err != nil {
		return nil, err
	}
	open, err := p.ledger.OpenRequests(ctx, ledger.Filter{TeamID: r.GetTeamId(), UserID: r.GetUserId(), KeyID: r.GetKeyId(), Limit: limit})
	if err != nil {
		return nil, err
	}
	resp := &proxyv1.ListOpenRequestsResponse{}
	for _, o := range open {
		resp.OpenRequests = append(resp.OpenRequests, &proxyv1.OpenRequest{
			RequestId: o.RequestID, LogId: o.LogID, KeyId: o.KeyID, TeamId: o.TeamID, UserId: o.UserID, Model: o.Model,
			HeldNanoUsd: int64(o.Hold), StartedAt: timestamppb.New(o.StartedAt),
		})
	}
	return resp, nil
}

// call makes a domain call out of a gRPC one.
func (p *Proxy) call(ctx context.Context, path string, body *httpbody.HttpBody, version string, beta []string) proxy.Call {
	md, _ := metadata.FromIncomingContext(ctx)
	h := proxy.Header{}
	for _, name := range []string{"Authorization", "X-Api-Key", "User-Agent"} {
		if v := md.Get(name); len(v) > 0 {
			h.Set(name, v[0])
		}
	}
	h.Set("Content-Type", "application/json")
	if version != "" {
		h.Set("Anthropic-Version", version)
	}
	if len(beta) > 0 {
		h.Set("Anthropic-Beta", strings.Join(beta, ","))
	}
	return proxy.Call{Path: path, From: p.proxies.CallerOf(ctx), RequestID: id.New("req_", time.Now()), Key: proxy.KeyFrom(h), Header: h, Body: body.GetData()}
}

// sink passes an answer on over gRPC.
type sink struct {
	send        func(*httpbody.HttpBody) error
	stopped     chan struct{}
	stop        sync.Once
	contentType string
	status      string
}

func newSink(send func(*httpbody.HttpBody) error) *sink {
	return &sink{send: send, stopped: make(chan struct{})}
}

// stopGrace is how long a caller that takes nothing may hold up the end of a request
// that was stopped, as over HTTP.
const stopGrace = 2 * time.Second

var errTakesNothing = errors.New("the caller takes nothing of its answer")

// Stop implements proxy.Sink.
func (s *sink) Stop() { s.stop.Do(func() { close(s.stopped) }) }

// Start implements proxy.Sink.
func (s *sink) Start(status int, h head.Lines) error {
	s.contentType = h.Get("Content-Type")
	s.status = strconv.Itoa(status)
	return nil
}

// Write implements proxy.Sink. The bytes are copied: gRPC keeps them. A caller that takes
// nothing is left waiting when the request was stopped: its stream ends with the method.
func (s *sink) Write(p []byte) error {
	if len(p) == 0 && strings.HasPrefix(s.contentType, "text/event-stream") {
		return nil // there is no beginning of a stream to send by itself
	}
	body := &httpbody.HttpBody{ContentType: s.contentType, Data: append([]byte(nil), p...)}
	sent := make(chan error, 1)
	go func() { sent <- s.send(body) }()
	select {
	case err := <-sent:
		return err
	case <-s.stopped:
	}
	select {
	case err := <-sent:
		return err
	case <-time.After(stopGrace):
		return errTakesNothing
	}
}

// Last implements proxy.Sink.
func (s *sink) Last(p []byte) error { return s.Write(p) }

// toFault gives an answer of ours the kind that gRPC callers act on.
func toFault(err error) error {
	own, ok := errorOf(err)
	if !ok {
		return err
	}
	kind := fault.Unavailable
	switch own.Status {
	case 400, 413:
		kind = fault.Invalid
	case 401:
		kind = fault.Unauthenticated
	case 402:
		kind = fault.Precondition
	case 403:
		kind = fault.Denied
	case 404:
		kind = fault.NotFound
	case 429:
		kind = fault.Exhausted
	}
	return fault.Wrap(kind, err, own.Message)
}

func errorOf(err error) (*proxy.Error, bool) {
	if errors.Is(err, proxy.ErrCut) {
		return &proxy.Error{Status: 503, Message: "the answer was cut"}, true
	}
	return errors.AsType[*proxy.Error](err)
}
