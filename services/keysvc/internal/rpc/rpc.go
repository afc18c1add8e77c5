// Package rpc serves KeyService and TeamService: it translates between the wire
// and the domain and decides nothing. Errors pass unchanged; kit/serve turns
// them into statuses.
package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// caller is who is on the other side, for the audit.
func caller(ctx context.Context) key.Caller {
	return key.Caller{Actor: serve.Actor(ctx), RequestID: serve.RequestID(ctx)}
}

func limitsFrom(l *keysv1.Limits) key.Limits {
	if l == nil {
		return key.Limits{}
	}
	out := key.Limits{
		RPMLimit: l.RpmLimit, TPMLimit: l.TpmLimit, MaxParallelRequests: l.MaxParallelRequests,
		BudgetDuration: l.GetBudgetDuration(),
	}
	if l.MaxBudgetNanoUsd != nil {
		budget := money.NanoUSD(l.GetMaxBudgetNanoUsd())
		out.MaxBudgetNanoUSD = &budget
	}
	return out
}

func limitsTo(l key.Limits) *keysv1.Limits {
	out := &keysv1.Limits{
		RpmLimit: l.RPMLimit, TpmLimit: l.TPMLimit, MaxParallelRequests: l.MaxParallelRequests,
		BudgetDuration: l.BudgetDuration,
	}
	if l.MaxBudgetNanoUSD != nil {
		budget := int64(*l.MaxBudgetNanoUSD)
		out.MaxBudgetNanoUsd = &budget
	}
	return out
}

// metadataFrom is the JSON of a struct; nil stays nil.
func metadataFrom(s *structpb.Struct) (json.RawMessage, error) {
	if s == nil {
		return nil, nil
	}
	doc, err := protojson.Marshal(s)
	if err != nil { // a number that JSON does not have, or text that is not UTF-8
		return nil, fault.Wrap(fault.Invalid, err, "metadata cannot be written as JSON")
	}
	return doc, nil
}

func metadataTo(doc json.RawMessage) (*structpb.Struct, error) {
	s := &structpb.Struct{}
	if err := protojson.Unmarshal(doc, s); err != nil {
		return nil, fmt.Errorf("read stored metadata: %w", err)
	}
	return s, nil
}

// instant is absent for nil.
func instant(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func keyTo(k key.Key) (*keysv1.Key, error) {
	metadata, err := metadataTo(k.Metadata)
	if err != nil {
		return nil, err
	}
	return &keysv1.Key{
		KeyId: k.KeyID, Token: k.Token, KeyName: k.KeyName, KeyAlias: k.KeyAlias,
		TeamId: k.TeamID, UserId: k.UserID, Models: k.Models, Limits: limitsTo(k.Limits), Metadata: metadata,
		ExpiresAt: instant(k.ExpiresAt), Blocked: k.Blocked, RevokedAt: instant(k.RevokedAt),
		CreatedAt: timestamppb.New(k.CreatedAt), UpdatedAt: timestamppb.New(k.UpdatedAt),
		Duration: k.Duration, Tags: k.Tags,
	}, nil
}

func keysTo(keys []key.Key) ([]*keysv1.Key, error) {
	out := make([]*keysv1.Key, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = keyTo(k); err != nil {
			return nil, err
		}
	}
	return out, nil
}
