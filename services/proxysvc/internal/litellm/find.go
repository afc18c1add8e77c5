package litellm

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// findKey finds a key that was not ended, by its secret, token, id or alias. A
// revoked one is no more to LiteLLM's clients.
func (s *Server) findKey(ctx context.Context, key string) (*keysv1.Key, error) {
	k, err := s.anyKey(ctx, key)
	if err != nil {
		return nil, err
	}
	if k == nil || k.GetRevokedAt() != nil {
		return nil, fault.Errorf(fault.NotFound, "Key not found in database")
	}
	return k, nil
}

// anyKey finds a key, ended or not; nil: there is none.
func (s *Server) anyKey(ctx context.Context, key string) (*keysv1.Key, error) {
	if key == "" {
		return nil, fault.Errorf(fault.Invalid, "key must be given: a key or its token")
	}
	resp, err := s.keys.GetKey(ctx, &keysv1.GetKeyRequest{KeyId: tokenOf(key)})
	if status.Code(err) == codes.NotFound {
		return nil, nil //nolint:nilnil // there is none
	}
	return resp.GetKey(), err
}

// mostRows bounds what an unpaged answer holds: it must fit a message.
const mostRows = 10_000

// allKeys lists all keys that a request picks; Invalid when there are too many
// for one answer.
func (s *Server) allKeys(ctx context.Context, r *keysv1.ListKeysRequest) ([]*keysv1.Key, error) {
	var all []*keysv1.Key
	r.PageSize = 1000
	for {
		resp, err := s.keys.ListKeys(ctx, r)
		if err != nil {
			return nil, err
		}
		all = append(all, resp.GetKeys()...)
		r.PageToken = resp.GetNextPageToken()
		switch {
		case r.PageToken == "":
			return all, nil
		case len(all) >= mostRows:
			return nil, fault.Errorf(fault.Invalid, "there are more than %d keys for one answer; list them in pages with /key/list", mostRows)
		}
	}
}

// findTeam finds a team that was not deleted; nil: there is none.
func (s *Server) findTeam(ctx context.Context, id string) (*keysv1.Team, error) {
	if id == "" {
		return nil, fault.Errorf(fault.Invalid, "team_id must be given")
	}
	resp, err := s.teams.GetTeam(ctx, &keysv1.GetTeamRequest{TeamId: id})
	if status.Code(err) == codes.NotFound || err == nil && resp.GetTeam().GetDeletedAt() != nil {
		return nil, nil //nolint:nilnil // there is none
	}
	return resp.GetTeam(), err
}

// ensureTeam makes a team that is not there: LiteLLM takes keys of teams that do
// not exist, and a team makes the key billable. Empty: none is meant.
func (s *Server) ensureTeam(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	_, err := s.teams.EnsureTeam(ctx, &keysv1.EnsureTeamRequest{TeamId: id})
	return err
}

// keyBalances tells what keys have spent in their windows.
func (s *Server) keyBalances(ctx context.Context, keys ...*keysv1.Key) ([]ledger.Balance, error) {
	queries := make([]ledger.BalanceQuery, len(keys))
	for i, k := range keys {
		queries[i] = ledger.BalanceQuery{
			AccountID: ledger.AccountID{Kind: ledger.KindKey, ID: k.GetKeyId()}, Window: k.GetLimits().GetBudgetDuration(),
		}
	}
	return s.balances(ctx, queries)
}

// teamBalances tells what teams have spent in their windows.
func (s *Server) teamBalances(ctx context.Context, teams ...*keysv1.Team) ([]ledger.Balance, error) {
	queries := make([]ledger.BalanceQuery, len(teams))
	for i, t := range teams {
		queries[i] = ledger.BalanceQuery{
			AccountID: ledger.AccountID{Kind: ledger.KindTeam, ID: t.GetTeamId()}, Window: t.GetLimits().GetBudgetDuration(),
		}
	}
	return s.balances(ctx, queries)
}

func (s *Server) balances(ctx context.Context, queries []ledger.BalanceQuery) ([]ledger.Balance, error) {
	if len(queries) == 0 {
		return nil, nil
	}
	return s.ledger.Balances(ctx, s.now(), queries)
}
