// Package litellm is the facade of LiteLLM's management routes: it calls the
// key service and the ledger and answers in LiteLLM's shapes.
package litellm

import (
	"context"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Accounts tells what keys and teams have spent.
type Accounts interface {
	Summary(ctx context.Context, id ledger.AccountID) (ledger.Summary, error)
}

// Server implements LiteLLMService.
type Server struct {
	litellmv1.UnimplementedLiteLLMServiceServer
	keys     keysv1.KeyServiceClient
	teams    keysv1.TeamServiceClient
	accounts Accounts
}

// New makes a server.
func New(keys keysv1.KeyServiceClient, teams keysv1.TeamServiceClient, accounts Accounts) *Server {
	return &Server{keys: keys, teams: teams, accounts: accounts}
}

// GenerateKey implements POST /key/generate.
func (s *Server) GenerateKey(ctx context.Context, r *litellmv1.GenerateKeyRequest) (*litellmv1.GenerateKeyResponse, error) {
	if r.GetKey().GetValue() != "" {
		return nil, fault.Errorf(fault.Invalid, "key cannot be chosen here: leave it out and use the key of the answer")
	}
	limits, err := limitsFrom(r.GetMaxBudget(), r.GetRpmLimit(), r.GetTpmLimit(), r.GetMaxParallelRequests(), r.GetBudgetDuration())
	if err != nil {
		return nil, err
	}
	if team := r.GetTeamId().GetValue(); team != "" {
		// LiteLLM takes a team that does not exist; a team makes the key billable.
		if _, err := s.teams.EnsureTeam(ctx, &keysv1.EnsureTeamRequest{TeamId: team}); err != nil {
			return nil, err
		}
	}
	resp, err := s.keys.CreateKey(ctx, &keysv1.CreateKeyRequest{
		KeyAlias: r.GetKeyAlias().GetValue(), TeamId: r.GetTeamId().GetValue(), UserId: r.GetUserId().GetValue(),
		Models: r.GetModels(), Limits: limits, Metadata: r.GetMetadata(), Duration: r.GetDuration().GetValue(), Tags: r.GetTags(),
	})
	if err != nil {
		return nil, err
	}
	return generated(resp), nil
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

// GetKeyInfo implements GET /key/info.
func (s *Server) GetKeyInfo(ctx context.Context, r *litellmv1.GetKeyInfoRequest) (*litellmv1.GetKeyInfoResponse, error) {
	if r.GetKey() == "" {
		return nil, fault.Errorf(fault.Invalid, "key must be given: a key or its token")
	}
	resp, err := s.keys.GetKey(ctx, &keysv1.GetKeyRequest{KeyId: tokenOf(r.GetKey())})
	if status.Code(err) == codes.NotFound || err == nil && resp.GetKey().GetRevokedAt() != nil {
		return nil, fault.Errorf(fault.NotFound, "Key not found in database")
	}
	if err != nil {
		return nil, err
	}
	spent, err := s.spent(ctx, ledger.KindKey, resp.GetKey().GetKeyId())
	if err != nil {
		return nil, err
	}
	return &litellmv1.GetKeyInfoResponse{Key: r.GetKey(), Info: keyInfo(resp.GetKey(), spent)}, nil
}

// NewTeam implements POST /team/new.
func (s *Server) NewTeam(ctx context.Context, r *litellmv1.NewTeamRequest) (*litellmv1.NewTeamResponse, error) {
	limits, err := limitsFrom(r.GetMaxBudget(), r.GetRpmLimit(), r.GetTpmLimit(), r.GetMaxParallelRequests(), r.GetBudgetDuration())
	if err != nil {
		return nil, err
	}
	id := r.GetTeamId().GetValue()
	if id == "" {
		id = uuid.NewString()
	}
	resp, err := s.teams.EnsureTeam(ctx, &keysv1.EnsureTeamRequest{
		TeamId: id, TeamAlias: r.GetTeamAlias().GetValue(), Limits: limits, Models: r.GetModels(), Metadata: r.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	if !resp.GetCreated() {
		return nil, fault.Errorf(fault.Invalid, "Team id = %s already exists. Please use a different team id.", id)
	}
	return teamRow(resp.GetTeam(), 0), nil
}

// GetTeamInfo implements GET /team/info.
func (s *Server) GetTeamInfo(ctx context.Context, r *litellmv1.GetTeamInfoRequest) (*litellmv1.GetTeamInfoResponse, error) {
	if r.GetTeamId() == "" {
		return nil, fault.Errorf(fault.Invalid, "team_id must be given")
	}
	resp, err := s.teams.GetTeam(ctx, &keysv1.GetTeamRequest{TeamId: r.GetTeamId()})
	if status.Code(err) == codes.NotFound {
		return nil, fault.Errorf(fault.NotFound, "Team not found, passed team id: %s.", r.GetTeamId())
	}
	if err != nil {
		return nil, err
	}
	spent, err := s.spent(ctx, ledger.KindTeam, r.GetTeamId())
	if err != nil {
		return nil, err
	}
	out := &litellmv1.GetTeamInfoResponse{TeamId: r.GetTeamId(), TeamInfo: teamRow(resp.GetTeam(), spent)}
	list, err := s.keys.ListKeys(ctx, &keysv1.ListKeysRequest{TeamId: r.GetTeamId(), PageSize: 1000})
	if err != nil {
		return nil, err
	}
	for _, k := range list.GetKeys() {
		spent, err := s.spent(ctx, ledger.KindKey, k.GetKeyId())
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, keyInfo(k, spent))
	}
	return out, nil
}

func (s *Server) spent(ctx context.Context, kind, id string) (float64, error) {
	sum, err := s.accounts.Summary(ctx, ledger.AccountID{Kind: kind, ID: id})
	if err != nil {
		return 0, err
	}
	return usd(int64(sum.Spent)), nil
}

// tokenOf takes a key or its token, as LiteLLM's routes do.
func tokenOf(key string) string {
	if strings.HasPrefix(key, virtualkey.Prefix) {
		return virtualkey.Token(key)
	}
	return key
}

// usd is an amount as the number that LiteLLM's shapes ask for: the double
// nearest to it, whose shortest decimal is the exact amount up to $8 million.
func usd(nano int64) float64 { return float64(nano) / 1e9 }

func text(s string) *wrapperspb.StringValue {
	if s == "" {
		return nil
	}
	return wrapperspb.String(s)
}

func whole(name string, v *wrapperspb.DoubleValue) (*int64, error) {
	if v == nil {
		return nil, nil //nolint:nilnil // absent: no limit
	}
	n, err := strconv.ParseInt(strconv.FormatFloat(v.GetValue(), 'f', -1, 64), 10, 64)
	if err != nil || n < 0 {
		return nil, fault.Errorf(fault.Invalid, "%s must be a whole number that is not negative. Received: %v", name, v.GetValue())
	}
	return &n, nil
}
