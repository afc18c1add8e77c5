package rpc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// KeyServer serves KeyService.
type KeyServer struct {
	keysv1.UnimplementedKeyServiceServer
	svc      *key.Service
	feed     Feed
	proxyURL string
	draining <-chan struct{}
}

// KeyServerConfig is what a KeyServer needs.
type KeyServerConfig struct {
	Service *key.Service
	Feed    Feed
	// ProxyURL is where sandboxes reach the proxy, without /v1.
	ProxyURL string
	// Draining ends watches when it is closed.
	Draining <-chan struct{}
}

// NewKeyServer makes a KeyServer.
func NewKeyServer(c KeyServerConfig) *KeyServer {
	return &KeyServer{svc: c.Service, feed: c.Feed, proxyURL: c.ProxyURL, draining: c.Draining}
}

// IssueSessionKey implements KeyService.
func (s *KeyServer) IssueSessionKey(ctx context.Context, req *keysv1.IssueSessionKeyRequest) (*keysv1.IssueSessionKeyResponse, error) {
	metadata, err := metadataFrom(req.GetMetadata())
	if err != nil {
		return nil, err
	}
	c, err := s.svc.IssueSessionKey(ctx, caller(ctx), key.IssueRequest{
		Attributes: key.Attributes{
			TeamID: req.GetTeamId(), UserID: req.GetUserId(), Models: req.GetModels(), Tags: req.GetTags(), Aliases: req.GetAliases(),
			AllowedCIDRs: req.GetAllowedCidrs(), AllowedRoutes: req.GetAllowedRoutes(),
			Limits: limitsFrom(req.GetLimits()), Metadata: metadata, Duration: req.GetDuration(),
		},
		TeamAlias: req.GetTeamAlias(), IdempotencyKey: idempotencyKey(ctx, req.GetIdempotencyKey()),
	})
	if err != nil {
		return nil, err
	}
	k, err := keyTo(c.Key)
	if err != nil {
		return nil, err
	}
	sandbox := key.Sandbox{URL: s.proxyURL, Secret: c.Secret}
	opencode, err := structpb.NewStruct(sandbox.OpenCode())
	if err != nil {
		return nil, fmt.Errorf("make the OpenCode configuration: %w", err)
	}
	return &keysv1.IssueSessionKeyResponse{
		Key: k, Secret: c.Secret.Reveal(), Env: sandbox.Env(), OpencodeConfig: opencode,
	}, nil
}

// CreateKey implements KeyService.
func (s *KeyServer) CreateKey(ctx context.Context, req *keysv1.CreateKeyRequest) (*keysv1.CreateKeyResponse, error) {
	metadata, err := metadataFrom(req.GetMetadata())
	if err != nil {
		return nil, err
	}
	c, err := s.svc.CreateKey(ctx, caller(ctx), key.CreateRequest{
		Attributes: key.Attributes{
			KeyAlias: req.GetKeyAlias(), TeamID: req.GetTeamId(), UserID: req.GetUserId(),
			Models: req.GetModels(), Tags: req.GetTags(), Aliases: req.GetAliases(),
			AllowedCIDRs: req.GetAllowedCidrs(), AllowedRoutes: req.GetAllowedRoutes(),
			Limits: limitsFrom(req.GetLimits()), Metadata: metadata, Duration: req.GetDuration(), Blocked: req.GetBlocked(),
		},
		IdempotencyKey: idempotencyKey(ctx, req.GetIdempotencyKey()),
	})
	if err != nil {
		return nil, err
	}
	k, err := keyTo(c.Key)
	return &keysv1.CreateKeyResponse{Key: k, Secret: c.Secret.Reveal()}, err
}

// GetKey implements KeyService.
func (s *KeyServer) GetKey(ctx context.Context, req *keysv1.GetKeyRequest) (*keysv1.GetKeyResponse, error) {
	found, err := s.svc.Key(ctx, req.GetKeyId())
	if err != nil {
		return nil, err
	}
	k, err := keyTo(found)
	return &keysv1.GetKeyResponse{Key: k}, err
}

// BlockKey implements KeyService.
func (s *KeyServer) BlockKey(ctx context.Context, req *keysv1.BlockKeyRequest) (*keysv1.BlockKeyResponse, error) {
	blocked, err := s.svc.BlockKey(ctx, caller(ctx), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	k, err := keyTo(blocked)
	return &keysv1.BlockKeyResponse{Key: k}, err
}

// UnblockKey implements KeyService.
func (s *KeyServer) UnblockKey(ctx context.Context, req *keysv1.UnblockKeyRequest) (*keysv1.UnblockKeyResponse, error) {
	unblocked, err := s.svc.UnblockKey(ctx, caller(ctx), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	k, err := keyTo(unblocked)
	return &keysv1.UnblockKeyResponse{Key: k}, err
}

// RevokeKeys implements KeyService.
func (s *KeyServer) RevokeKeys(ctx context.Context, req *keysv1.RevokeKeysRequest) (*keysv1.RevokeKeysResponse, error) {
	revoked, revision, err := s.svc.RevokeKeys(ctx, caller(ctx), key.Selection{
		KeyIDs: req.GetKeyIds(), KeyAliases: req.GetKeyAliases(), Tokens: req.GetTokens(),
		UserID: req.GetUserId(), TeamID: req.GetTeamId(),
	})
	if err != nil {
		return nil, err
	}
	keys, err := keysTo(revoked)
	return &keysv1.RevokeKeysResponse{Keys: keys, Revision: revision}, err
}

// VerifyKey implements KeyService.
func (s *KeyServer) VerifyKey(ctx context.Context, req *keysv1.VerifyKeyRequest) (*keysv1.VerifyKeyResponse, error) {
	g, err := s.svc.VerifyKey(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	resp := &keysv1.VerifyKeyResponse{Revision: g.Revision, SecretExpiresAt: instant(g.SecretExpiresAt)}
	if resp.Key, err = keyTo(g.Key); err != nil || g.Team == nil {
		return resp, err
	}
	resp.Team, err = teamTo(*g.Team)
	return resp, err
}
