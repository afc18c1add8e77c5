package litellm

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// GenerateKey implements POST /key/generate.
func (s *Server) GenerateKey(ctx context.Context, r *litellmv1.GenerateKeyRequest) (*litellmv1.GenerateKeyResponse, error) {
	create, err := createFrom(r)
	if err != nil {
		return nil, err
	}
	create.IdempotencyKey = idempotencyKey(ctx)
	if err := s.ensureTeam(ctx, create.GetTeamId()); err != nil {
		return nil, err
	}
	resp, err := s.keys.CreateKey(ctx, create)
	if err != nil {
		return nil, err
	}
	return generated(resp.GetKey(), resp.GetSecret(), ledger.Balance{}), nil
}

func createFrom(r *litellmv1.GenerateKeyRequest) (*keysv1.CreateKeyRequest, error) {
	if r.GetKey().GetValue() != "" {
		return nil, fault.Errorf(fault.Invalid, "key cannot be chosen here: leave it out and use the key of the answer")
	}
	if r.GetSpend().GetValue() != 0 {
		return nil, errSpend
	}
	if err := checkKey(r); err != nil {
		return nil, err
	}
	limits, _, err := limitsFrom(r)
	if err != nil {
		return nil, err
	}
	routes, err := routesFrom(r.GetAllowedRoutes(), r.GetKeyType().GetValue())
	if err != nil {
		return nil, err
	}
	return &keysv1.CreateKeyRequest{
		KeyAlias: r.GetKeyAlias().GetValue(), TeamId: r.GetTeamId().GetValue(), UserId: r.GetUserId().GetValue(),
		Models: r.GetModels(), Limits: limits, Metadata: r.GetMetadata(), Duration: r.GetDuration().GetValue(),
		Tags: r.GetTags(), Aliases: r.GetAliases(), AllowedRoutes: routes, Blocked: r.GetBlocked().GetValue(),
	}, nil
}

// routesFrom are the allowed routes that a type of key means, if there is one.
func routesFrom(given []string, keyType string) ([]string, error) {
	switch keyType {
	case "", "default":
		return given, nil
	case "llm_api":
		return []string{"llm_api_routes"}, nil
	case "management":
		return []string{"management_routes"}, nil
	case "read_only":
		return []string{"info_routes"}, nil
	}
	return nil, fault.Errorf(fault.Invalid, "key_type must be default, llm_api, management or read_only. Received: %.64q", keyType)
}

// GenerateServiceAccountKey implements POST /key/service-account/generate.
func (s *Server) GenerateServiceAccountKey(ctx context.Context, r *litellmv1.GenerateServiceAccountKeyRequest) (*litellmv1.GenerateServiceAccountKeyResponse, error) {
	switch {
	case r.GetKey().GetTeamId().GetValue() == "":
		return nil, fault.Errorf(fault.Invalid, "team_id is required for service account keys")
	case r.GetKey().GetUserId().GetValue() != "":
		return nil, fault.Errorf(fault.Invalid, "user_id cannot be set for service account keys")
	}
	key, err := s.GenerateKey(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	return &litellmv1.GenerateServiceAccountKeyResponse{Key: key}, nil
}

// DeleteKey implements POST /key/delete.
func (s *Server) DeleteKey(ctx context.Context, r *litellmv1.DeleteKeyRequest) (*litellmv1.DeleteKeyResponse, error) {
	if len(r.GetKeys())+len(r.GetKeyAliases()) == 0 {
		return nil, fault.Errorf(fault.Invalid, "keys or key_aliases must be given")
	}
	tokens := make([]string, 0, len(r.GetKeys()))
	for _, k := range r.GetKeys() {
		tokens = append(tokens, tokenOf(k))
	}
	_, err := s.keys.RevokeKeys(ctx, &keysv1.RevokeKeysRequest{Tokens: tokens, KeyAliases: r.GetKeyAliases()})
	if status.Code(err) == codes.NotFound {
		return nil, fault.Errorf(fault.NotFound, "No keys found")
	}
	if err != nil {
		return nil, err
	}
	// LiteLLM answers with what it was given.
	if len(r.GetKeyAliases()) > 0 {
		return &litellmv1.DeleteKeyResponse{DeletedKeys: r.GetKeyAliases()}, nil
	}
	return &litellmv1.DeleteKeyResponse{DeletedKeys: r.GetKeys()}, nil
}

// GetKeyInfo implements GET /key/info for administrators.
func (s *Server) GetKeyInfo(ctx context.Context, r *litellmv1.GetKeyInfoRequest) (*litellmv1.GetKeyInfoResponse, error) {
	k, err := s.findKey(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	spent, err := s.keyBalances(ctx, k)
	if err != nil {
		return nil, err
	}
	return &litellmv1.GetKeyInfoResponse{Key: r.GetKey(), Info: keyInfo(k, spent[0])}, nil
}

// mostKeys bounds how many keys one request names.
const mostKeys = 500

// ListKeyInfo implements POST /v2/key/info.
func (s *Server) ListKeyInfo(ctx context.Context, r *litellmv1.ListKeyInfoRequest) (*litellmv1.ListKeyInfoResponse, error) {
	if n := len(r.GetKeys()); n == 0 || n > mostKeys {
		return nil, fault.Errorf(fault.Invalid, "keys must be given, at most %d", mostKeys)
	}
	out := &litellmv1.ListKeyInfoResponse{Key: r.GetKeys()}
	for _, given := range r.GetKeys() {
		k, err := s.anyKey(ctx, given)
		if err != nil {
			return nil, err
		}
		if k == nil || k.GetRevokedAt() != nil {
			continue
		}
		row, err := s.row(ctx, k)
		if err != nil {
			return nil, err
		}
		delete(row.GetFields(), "token")
		out.Info = append(out.Info, row)
	}
	if len(out.GetInfo()) == 0 {
		return nil, fault.Errorf(fault.NotFound, "No keys found")
	}
	return out, nil
}

// row is LiteLLM's row of a key as it stands.
func (s *Server) row(ctx context.Context, k *keysv1.Key) (*structpb.Struct, error) {
	spent, err := s.keyBalances(ctx, k)
	if err != nil {
		return nil, err
	}
	return keyRow(k, spent[0])
}

// BlockKey implements POST /key/block.
func (s *Server) BlockKey(ctx context.Context, r *litellmv1.BlockKeyRequest) (*litellmv1.BlockKeyResponse, error) {
	id, err := s.gateOf(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	resp, err := s.keys.BlockKey(ctx, &keysv1.BlockKeyRequest{KeyId: id})
	if err != nil {
		return nil, err
	}
	row, err := s.row(ctx, resp.GetKey())
	return &litellmv1.BlockKeyResponse{Row: withBlocked(row, true)}, err
}

// UnblockKey implements POST /key/unblock.
func (s *Server) UnblockKey(ctx context.Context, r *litellmv1.UnblockKeyRequest) (*litellmv1.UnblockKeyResponse, error) {
	id, err := s.gateOf(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	resp, err := s.keys.UnblockKey(ctx, &keysv1.UnblockKeyRequest{KeyId: id})
	if err != nil {
		return nil, err
	}
	row, err := s.row(ctx, resp.GetKey())
	return &litellmv1.UnblockKeyResponse{Row: withBlocked(row, false)}, err
}

// gateOf is the id of a key that is named by its secret or token, and by nothing
// else: LiteLLM takes no names here.
func (s *Server) gateOf(ctx context.Context, key string) (string, error) {
	if len(tokenOf(key)) != len(tokenOf("sk-")) {
		return "", fault.Errorf(fault.Invalid, "Invalid key format.")
	}
	k, err := s.findKey(ctx, key)
	return k.GetKeyId(), err
}

// withBlocked says false where other rows have null: these routes do.
func withBlocked(row *structpb.Struct, blocked bool) *structpb.Struct {
	if row != nil {
		row.Fields["blocked"] = structpb.NewBoolValue(blocked)
	}
	return row
}

// CheckKeyHealth implements POST /key/health: keys have no callbacks here that
// could be broken.
func (s *Server) CheckKeyHealth(context.Context, *litellmv1.CheckKeyHealthRequest) (*litellmv1.CheckKeyHealthResponse, error) {
	return &litellmv1.CheckKeyHealthResponse{Key: "healthy"}, nil
}
