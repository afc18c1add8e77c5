package rpc

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// UpdateKey implements KeyService.
func (s *KeyServer) UpdateKey(ctx context.Context, req *keysv1.UpdateKeyRequest) (*keysv1.UpdateKeyResponse, error) {
	u, err := updateFrom(req.GetKey(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	changed, revision, err := s.svc.UpdateKey(ctx, caller(ctx), req.GetKey().GetKeyId(), u)
	if err != nil {
		return nil, err
	}
	k, err := keyTo(changed)
	return &keysv1.UpdateKeyResponse{Key: k, Revision: revision}, err
}

// RotateKey implements KeyService.
func (s *KeyServer) RotateKey(ctx context.Context, req *keysv1.RotateKeyRequest) (*keysv1.RotateKeyResponse, error) {
	u, err := updateFrom(req.GetKey(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	r, err := s.svc.RotateKey(ctx, caller(ctx), key.RotateRequest{
		Ref: req.GetKeyId(), GracePeriod: req.GetGracePeriod(), Update: u,
		IdempotencyKey: idempotencyKey(ctx, req.GetIdempotencyKey()),
	})
	if err != nil {
		return nil, err
	}
	k, err := keyTo(r.Key)
	return &keysv1.RotateKeyResponse{
		Key: k, Secret: r.Secret.Reveal(), GraceEndsAt: instant(r.GraceEndsAt), Revision: r.Revision,
	}, err
}

// updateFrom reads the part of a key that can be changed.
func updateFrom(k *keysv1.Key, mask *fieldmaskpb.FieldMask) (key.Update, error) {
	metadata, err := metadataFrom(k.GetMetadata())
	if err != nil {
		return key.Update{}, err
	}
	return key.Update{
		Fields: fields(mask, "key_id"),
		Attributes: key.Attributes{
			KeyAlias: k.GetKeyAlias(), TeamID: k.GetTeamId(), UserID: k.GetUserId(),
			Models: k.GetModels(), Tags: k.GetTags(), Aliases: k.GetAliases(),
			AllowedCIDRs: k.GetAllowedCidrs(), AllowedRoutes: k.GetAllowedRoutes(),
			Limits: limitsFrom(k.GetLimits()), Metadata: metadata, Duration: k.GetDuration(), Blocked: k.GetBlocked(),
		},
	}, nil
}

// fields are the names in a mask without that of the id, which the gateway puts
// there when it stands in the body.
func fields(mask *fieldmaskpb.FieldMask, id string) []string {
	return slices.DeleteFunc(slices.Clone(mask.GetPaths()), func(path string) bool { return path == id })
}
