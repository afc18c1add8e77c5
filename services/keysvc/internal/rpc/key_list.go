package rpc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// ListKeys implements KeyService.
func (s *KeyServer) ListKeys(ctx context.Context, req *keysv1.ListKeysRequest) (*keysv1.ListKeysResponse, error) {
	found, err := s.svc.Keys(ctx, key.ListRequest{
		Filter: key.Filter{
			TeamID: req.GetTeamId(), UserID: req.GetUserId(), KeyAlias: req.GetKeyAlias(), Token: req.GetToken(),
			State: states[req.GetStatus()], Ended: req.GetIncludeEnded(),
			CreatedAfter: timeOf(req.GetCreatedAfter()), CreatedBefore: timeOf(req.GetCreatedBefore()),
		},
		Sort: sorts[req.GetSortBy()], Ascending: req.GetAscending(), Count: req.GetIncludeTotal(),
		Page: key.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken(), Skip: int(req.GetSkip())},
	})
	if err != nil {
		return nil, err
	}
	keys, err := keysTo(found.Items)
	return &keysv1.ListKeysResponse{Keys: keys, NextPageToken: found.Next, TotalCount: found.Total}, err
}

var states = map[keysv1.KeyStatus]key.State{
	keysv1.KeyStatus_KEY_STATUS_ACTIVE:  key.StateActive,
	keysv1.KeyStatus_KEY_STATUS_BLOCKED: key.StateBlocked,
	keysv1.KeyStatus_KEY_STATUS_EXPIRED: key.StateExpired,
	keysv1.KeyStatus_KEY_STATUS_REVOKED: key.StateRevoked,
}

var sorts = map[keysv1.KeySort]key.Sort{
	keysv1.KeySort_KEY_SORT_UPDATED_AT: key.ByUpdate,
	keysv1.KeySort_KEY_SORT_KEY_ALIAS:  key.ByAlias,
	keysv1.KeySort_KEY_SORT_MAX_BUDGET: key.ByBudget,
}

// ListAudit implements KeyService.
func (s *KeyServer) ListAudit(ctx context.Context, req *keysv1.ListAuditRequest) (*keysv1.ListAuditResponse, error) {
	rows, next, err := s.svc.AuditRows(ctx, key.AuditFilter{
		Entity: req.GetEntity(), Actor: req.GetActor(), Action: req.GetAction(), RequestID: req.GetRequestId(),
		Since: timeOf(req.GetSince()), Until: timeOf(req.GetUntil()),
	}, key.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	entries := make([]*keysv1.AuditEntry, len(rows))
	for i, r := range rows {
		if entries[i], err = entryTo(r); err != nil {
			return nil, fmt.Errorf("audit row %d: %w", r.ID, err)
		}
	}
	return &keysv1.ListAuditResponse{Entries: entries, NextPageToken: next}, nil
}

func entryTo(e key.Entry) (*keysv1.AuditEntry, error) {
	out := &keysv1.AuditEntry{
		Id: e.ID, At: timestamppb.New(e.At), Actor: e.Actor, ChangedBy: e.ChangedBy, RequestId: e.RequestID,
		Action: e.Action, Entity: e.Entity,
	}
	for _, k := range []struct {
		from *key.Key
		to   **keysv1.Key
	}{{e.KeyBefore, &out.KeyBefore}, {e.KeyAfter, &out.KeyAfter}} {
		if k.from == nil {
			continue
		}
		var err error
		if *k.to, err = keyTo(*k.from); err != nil {
			return nil, err
		}
	}
	for _, t := range []struct {
		from *key.Team
		to   **keysv1.Team
	}{{e.TeamBefore, &out.TeamBefore}, {e.TeamAfter, &out.TeamAfter}} {
		if t.from == nil {
			continue
		}
		var err error
		if *t.to, err = teamTo(*t.from); err != nil {
			return nil, err
		}
	}
	return out, nil
}
