package litellm

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// keySorts are LiteLLM's names of the orders that the key service has.
var keySorts = map[string]keysv1.KeySort{
	"":           keysv1.KeySort_KEY_SORT_CREATED_AT,
	"created_at": keysv1.KeySort_KEY_SORT_CREATED_AT,
	"updated_at": keysv1.KeySort_KEY_SORT_UPDATED_AT,
	"key_alias":  keysv1.KeySort_KEY_SORT_KEY_ALIAS,
	"max_budget": keysv1.KeySort_KEY_SORT_MAX_BUDGET,
}

// ListKeys implements GET /key/list.
func (s *Server) ListKeys(ctx context.Context, r *litellmv1.ListKeysRequest) (*litellmv1.ListKeysResponse, error) {
	p, err := pageOf(r.GetPage(), r.GetSize(), 10, 100)
	if err != nil {
		return nil, err
	}
	sort, ok := keySorts[r.GetSortBy()]
	if !ok {
		return nil, fault.Errorf(fault.Invalid, "sort_by must be created_at, updated_at, key_alias or max_budget. Received: %.64q", r.GetSortBy())
	}
	ascending, err := ascends(r.GetSortOrder())
	if err != nil {
		return nil, err
	}
	list := &keysv1.ListKeysRequest{
		UserId: r.GetUserId(), TeamId: r.GetTeamId(), Token: r.GetKeyHash(), KeyAlias: r.GetKeyAlias(),
		PageSize: int32(p.size), Skip: int32(p.skip()), IncludeTotal: true, SortBy: sort, Ascending: ascending, // pageOf bounds them
	}
	switch r.GetStatus() {
	case "":
	case "deleted":
		list.Status = keysv1.KeyStatus_KEY_STATUS_REVOKED
	default:
		return nil, fault.Errorf(fault.Invalid, "status must be deleted, or not given. Received: %.64q", r.GetStatus())
	}
	found, err := s.keys.ListKeys(ctx, list)
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListKeysResponse{
		TotalCount: int32(found.GetTotalCount()), CurrentPage: int32(p.number), TotalPages: p.pages(found.GetTotalCount()),
	}
	out.Keys, err = s.listed(ctx, found.GetKeys(), r.GetReturnFullObject())
	return out, err
}

// listed are the tokens of keys, or their rows.
func (s *Server) listed(ctx context.Context, keys []*keysv1.Key, whole bool) (*structpb.ListValue, error) {
	out := &structpb.ListValue{}
	if !whole {
		for _, k := range keys {
			out.Values = append(out.Values, structpb.NewStringValue(k.GetToken()))
		}
		return out, nil
	}
	rows, err := s.keyRows(ctx, keys)
	for _, row := range rows {
		out.Values = append(out.Values, structpb.NewStructValue(row))
	}
	return out, err
}

// keyRows are LiteLLM's rows of keys.
func (s *Server) keyRows(ctx context.Context, keys []*keysv1.Key) ([]*structpb.Struct, error) {
	spent, err := s.keyBalances(ctx, keys...)
	if err != nil {
		return nil, err
	}
	rows := make([]*structpb.Struct, len(keys))
	for i, k := range keys {
		if rows[i], err = keyRow(k, spent[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func ascends(order string) (bool, error) {
	switch strings.ToLower(order) {
	case "", "desc":
		return false, nil
	case "asc":
		return true, nil
	}
	return false, fault.Errorf(fault.Invalid, "sort_order must be asc or desc. Received: %.64q", order)
}

// ListKeyAliases implements GET /key/aliases.
func (s *Server) ListKeyAliases(ctx context.Context, r *litellmv1.ListKeyAliasesRequest) (*litellmv1.ListKeyAliasesResponse, error) {
	p, err := pageOf(r.GetPage(), r.GetSize(), 50, 100)
	if err != nil {
		return nil, err
	}
	names, err := s.aliases(ctx, strings.ToLower(r.GetSearch()))
	if err != nil {
		return nil, err
	}
	total := int64(len(names))
	return &litellmv1.ListKeyAliasesResponse{
		Aliases: cut(names, p), TotalCount: int32(total), CurrentPage: int32(p.number), TotalPages: p.pages(total), Size: int32(p.size),
	}, nil
}

// aliases are all aliases that contain a text, in order. The list is read from
// its end, where the keys with an alias are: those without one come first.
func (s *Server) aliases(ctx context.Context, search string) ([]string, error) {
	r := &keysv1.ListKeysRequest{SortBy: keysv1.KeySort_KEY_SORT_KEY_ALIAS, PageSize: 1000}
	var names []string
	for {
		resp, err := s.keys.ListKeys(ctx, r)
		if err != nil {
			return nil, err
		}
		r.PageToken = resp.GetNextPageToken()
		for _, k := range resp.GetKeys() {
			if k.GetKeyAlias() == "" {
				r.PageToken = ""
				break
			}
			if strings.Contains(strings.ToLower(k.GetKeyAlias()), search) {
				names = append(names, k.GetKeyAlias())
			}
		}
		if r.PageToken == "" {
			slices.Reverse(names)
			return names, nil
		}
	}
}
