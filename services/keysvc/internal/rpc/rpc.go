// Package rpc serves KeyService and TeamService: it translates between the wire
// and the domain and decides nothing. Errors pass unchanged; kit/serve turns
// them into statuses.
package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// caller is who is on the other side, for the audit.
func caller(ctx context.Context) key.Caller {
	return key.Caller{Actor: serve.Actor(ctx), RequestID: serve.RequestID(ctx), ChangedBy: header(ctx, "litellm-changed-by")}
}

// longestHeader bounds what is taken from a header into a row.
const longestHeader = 255

// header is the first value of a header that can be printed and is not too
// long; empty: there is none.
func header(ctx context.Context, name string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get(name) {
		if len(v) <= longestHeader && utf8.ValidString(v) && strings.IndexFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
			return v
		}
	}
	return ""
}

// idempotencyKey is the field, or the header that callers of REST send.
func idempotencyKey(ctx context.Context, field string) string {
	if field == "" {
		return header(ctx, "idempotency-key")
	}
	return field
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

// timeOf is zero for an absent instant. Postgres holds microseconds.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime().Truncate(time.Microsecond)
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
		Duration: k.Duration, Tags: k.Tags, Aliases: k.Aliases,
		AllowedCidrs: k.AllowedCIDRs, AllowedRoutes: k.AllowedRoutes, RotatedAt: instant(k.RotatedAt),
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
