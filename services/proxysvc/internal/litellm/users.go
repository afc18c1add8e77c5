package litellm

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// role is what every session is to LiteLLM's clients.
const role = "internal_user"

// NewUser implements POST /user/new: a user is a session, and a session is its
// key, so this makes one.
func (s *Server) NewUser(ctx context.Context, r *litellmv1.NewUserRequest) (*litellmv1.NewUserResponse, error) {
	create, err := sessionFrom(r)
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
	k := resp.GetKey()
	l := limitsOf(k.GetLimits())
	return &litellmv1.NewUserResponse{
		Key: resp.GetSecret(), KeyName: k.GetKeyName(), Token: k.GetToken(), KeyAlias: text(k.GetKeyAlias()), Expires: k.GetExpiresAt(),
		UserId: k.GetUserId(), UserEmail: r.GetUserEmail(), UserAlias: r.GetUserAlias(), UserRole: role,
		TeamId: text(k.GetTeamId()), Teams: teamsOf(k), Models: k.GetModels(), MaxBudget: dollars(l.MaxBudgetNanoUsd),
		BudgetDuration: text(l.GetBudgetDuration()), TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit),
		MaxParallelRequests: number(l.MaxParallelRequests), Metadata: object(k.GetMetadata()), CreatedAt: k.GetCreatedAt(), UpdatedAt: k.GetUpdatedAt(),
	}, nil
}

func sessionFrom(r *litellmv1.NewUserRequest) (*keysv1.CreateKeyRequest, error) {
	if r.GetAutoCreateKey() != nil && !r.GetAutoCreateKey().GetValue() {
		return nil, fault.Errorf(fault.Invalid, "a user is a session here, which exists by its keys: auto_create_key cannot be false")
	}
	if role := r.GetUserRole().GetValue(); strings.HasPrefix(role, "proxy_admin") {
		return nil, fault.Errorf(fault.Invalid, "user_role %.64q: administrators are made by LLM_PROXY_ADMIN_TOKENS", role)
	}
	team, err := teamOf(r)
	if err != nil {
		return nil, err
	}
	limits, _, err := limitsFrom(r)
	if err != nil {
		return nil, err
	}
	named := &change{key: &keysv1.Key{}}
	if err := named.named(r.GetAliases()); err != nil {
		return nil, err
	}
	id := r.GetUserId().GetValue()
	if id == "" {
		id = uuid.NewString()
	}
	return &keysv1.CreateKeyRequest{
		UserId: id, TeamId: team, KeyAlias: r.GetKeyAlias().GetValue(), Duration: r.GetDuration().GetValue(),
		Models: r.GetModels(), Metadata: r.GetMetadata(), Aliases: named.key.GetAliases(), Limits: limits,
	}, nil
}

// teamOf is the team of a new session, by either name.
func teamOf(r *litellmv1.NewUserRequest) (string, error) {
	teams := slices.Clone(r.GetTeams())
	if id := r.GetTeamId().GetValue(); id != "" && !slices.Contains(teams, id) {
		teams = append(teams, id)
	}
	switch len(teams) {
	case 0:
		return "", nil
	case 1:
		return teams[0], nil
	}
	return "", fault.Errorf(fault.Invalid, "a session belongs to one team, not to %d", len(teams))
}

func teamsOf(keys ...*keysv1.Key) []string {
	var ids []string
	for _, k := range keys {
		if k.GetTeamId() != "" && !slices.Contains(ids, k.GetTeamId()) {
			ids = append(ids, k.GetTeamId())
		}
	}
	return ids
}

// sessionKeys are the keys of a session that have not ended; NotFound when it
// never had any.
func (s *Server) sessionKeys(ctx context.Context, userID string) ([]*keysv1.Key, error) {
	if userID == "" {
		return nil, fault.Errorf(fault.Invalid, "user_id must be given")
	}
	keys, err := s.allKeys(ctx, &keysv1.ListKeysRequest{UserId: userID})
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	ever, err := s.keys.ListKeys(ctx, &keysv1.ListKeysRequest{UserId: userID, IncludeEnded: true, PageSize: 1})
	if err == nil && len(ever.GetKeys()) == 0 {
		err = fault.Errorf(fault.NotFound, "User %s not found", userID)
	}
	return nil, err
}

// GetUserInfo implements GET /user/info.
func (s *Server) GetUserInfo(ctx context.Context, r *litellmv1.GetUserInfoRequest) (*litellmv1.GetUserInfoResponse, error) {
	keys, err := s.sessionKeys(ctx, r.GetUserId())
	if err != nil {
		return nil, err
	}
	out := &litellmv1.GetUserInfoResponse{UserId: r.GetUserId()}
	if out.UserInfo, err = s.userRow(ctx, r.GetUserId(), keys); err != nil {
		return nil, err
	}
	if out.Keys, err = s.keyRows(ctx, keys); err != nil {
		return nil, err
	}
	aliases := map[string]string{}
	for _, id := range teamsOf(keys...) {
		team, err := s.findTeam(ctx, id)
		if err != nil {
			return nil, err
		}
		if team == nil {
			continue
		}
		aliases[id] = team.GetTeamAlias()
		row, err := s.teamStruct(ctx, team)
		if err != nil {
			return nil, err
		}
		out.Teams = append(out.Teams, row)
	}
	for i, k := range keys {
		out.Keys[i].Fields["team_alias"] = textOrNull(aliases[k.GetTeamId()])
	}
	return out, nil
}

func (s *Server) teamStruct(ctx context.Context, t *keysv1.Team) (*structpb.Struct, error) {
	row, err := s.teamRow(ctx, t)
	if err != nil {
		return nil, err
	}
	return structOf(row)
}

// userRow is LiteLLM's row of a session: its limits are those of its key, if it
// has one.
func (s *Server) userRow(ctx context.Context, userID string, keys []*keysv1.Key) (*litellmv1.UserRow, error) {
	spent, err := s.balances(ctx, []ledger.BalanceQuery{{AccountID: ledger.AccountID{Kind: ledger.KindUser, ID: userID}}})
	if err != nil {
		return nil, err
	}
	row := &litellmv1.UserRow{
		UserId: userID, UserRole: role, Spend: usd(spent[0].Spent), Teams: teamsOf(keys...), Metadata: object(nil), KeyCount: int32(len(keys)),
	}
	if len(keys) != 1 {
		return row, nil
	}
	of, err := s.keyBalances(ctx, keys[0])
	if err != nil {
		return nil, err
	}
	k, l := keys[0], limitsOf(keys[0].GetLimits())
	row.MaxBudget, row.BudgetDuration, row.BudgetResetAt = dollars(l.MaxBudgetNanoUsd), text(l.GetBudgetDuration()), resets(of[0])
	row.TpmLimit, row.RpmLimit, row.MaxParallelRequests = number(l.TpmLimit), number(l.RpmLimit), number(l.MaxParallelRequests)
	row.Models, row.Metadata, row.CreatedAt, row.UpdatedAt = k.GetModels(), object(k.GetMetadata()), k.GetCreatedAt(), k.GetUpdatedAt()
	return row, nil
}

// UpdateUser implements POST /user/update, for a session with exactly one key:
// a limit of LiteLLM's users holds over all their keys, which two keys would not
// keep.
func (s *Server) UpdateUser(ctx context.Context, r *litellmv1.UpdateUserRequest) (*litellmv1.UpdateUserResponse, error) {
	id := r.GetUserId().GetValue()
	keys, err := s.sessionKeys(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fault.Errorf(fault.Precondition, "user %s has %d keys; a session's limits are those of its key, so change them with /key/update", id, len(keys))
	}
	k, err := s.change(ctx, keys[0], &litellmv1.UpdateKeyRequest{
		Models: r.GetModels(), Metadata: r.GetMetadata(), Aliases: r.GetAliases(), Duration: r.GetDuration(), Spend: r.GetSpend(),
		MaxBudget: r.GetMaxBudget(), BudgetDuration: r.GetBudgetDuration(), TpmLimit: r.GetTpmLimit(), RpmLimit: r.GetRpmLimit(),
		MaxParallelRequests: r.GetMaxParallelRequests(), SoftBudget: r.GetSoftBudget(), BudgetLimits: r.GetBudgetLimits(),
		ModelMaxBudget: r.GetModelMaxBudget(), ModelRpmLimit: r.GetModelRpmLimit(), ModelTpmLimit: r.GetModelTpmLimit(),
		TempBudgetIncrease: r.GetTempBudgetIncrease(), TempBudgetExpiry: r.GetTempBudgetExpiry(),
	})
	if err != nil {
		return nil, err
	}
	row, err := s.userRow(ctx, id, []*keysv1.Key{k})
	return &litellmv1.UpdateUserResponse{UserId: id, Data: row}, err
}

// DeleteUser implements POST /user/delete: it ends all keys of sessions; none
// when one of them never had any.
func (s *Server) DeleteUser(ctx context.Context, r *litellmv1.DeleteUserRequest) (*litellmv1.DeleteUserResponse, error) {
	if n := len(r.GetUserIds()); n == 0 || n > mostKeys {
		return nil, fault.Errorf(fault.Invalid, "user_ids must be given, at most %d", mostKeys)
	}
	for _, id := range r.GetUserIds() {
		if _, err := s.sessionKeys(ctx, id); err != nil {
			return nil, err
		}
	}
	for _, id := range r.GetUserIds() {
		if _, err := s.keys.RevokeKeys(ctx, &keysv1.RevokeKeysRequest{UserId: id}); err != nil {
			return nil, err
		}
	}
	return &litellmv1.DeleteUserResponse{DeletedUsers: int32(len(r.GetUserIds()))}, nil
}

// ListUsers implements GET /user/list: the sessions that have a key, by their
// keys, newest first.
func (s *Server) ListUsers(ctx context.Context, r *litellmv1.ListUsersRequest) (*litellmv1.ListUsersResponse, error) {
	p, err := pageOf(r.GetPage(), r.GetPageSize(), 25, 100)
	if err != nil {
		return nil, err
	}
	if r.GetUserIds() != "" {
		return s.usersNamed(ctx, listOf(r.GetUserIds()), p)
	}
	resp, err := s.keys.ListKeys(ctx, &keysv1.ListKeysRequest{PageSize: int32(p.size), Skip: int32(p.skip()), IncludeTotal: true}) // pageOf bounds them
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListUsersResponse{
		Total: int32(resp.GetTotalCount()), Page: int32(p.number), PageSize: int32(p.size), TotalPages: p.pages(resp.GetTotalCount()),
	}
	for _, k := range resp.GetKeys() {
		if k.GetUserId() == "" {
			continue
		}
		row, err := s.userRow(ctx, k.GetUserId(), []*keysv1.Key{k})
		if err != nil {
			return nil, err
		}
		out.Users = append(out.Users, row)
	}
	return out, nil
}

// usersNamed lists sessions by their ids; those that never had a key are left
// out.
func (s *Server) usersNamed(ctx context.Context, ids []string, p page) (*litellmv1.ListUsersResponse, error) {
	if len(ids) > 100 {
		return nil, fault.Errorf(fault.Invalid, "user_ids has at most 100 entries")
	}
	var rows []*litellmv1.UserRow
	for _, id := range ids {
		keys, err := s.sessionKeys(ctx, id)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		row, err := s.userRow(ctx, id, keys)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	total := int64(len(rows))
	return &litellmv1.ListUsersResponse{
		Users: cut(rows, p), Total: int32(total), Page: int32(p.number), PageSize: int32(p.size), TotalPages: p.pages(total),
	}, nil
}

// listOf splits a list at its commas.
func listOf(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
