package litellm_test

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

var noon = timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))

// keysvc is a small key service in memory, reached over a real connection: another
// module's service cannot be imported. It keeps what it was last asked.
type keysvc struct {
	keysv1.UnimplementedKeyServiceServer
	mu      sync.Mutex
	keys    []*keysv1.Key
	old     map[string]string // rotated tokens → key_id
	created *keysv1.CreateKeyRequest
	revoked *keysv1.RevokeKeysRequest
	updated *keysv1.UpdateKeyRequest
	rotated *keysv1.RotateKeyRequest
	by      metadata.MD // what came with the last change
	teams   teamsvc
}

func (k *keysvc) CreateKey(ctx context.Context, r *keysv1.CreateKeyRequest) (*keysv1.CreateKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.created = r
	k.by, _ = metadata.FromIncomingContext(ctx)
	if err := checkWindow(r.GetLimits()); err != nil {
		return nil, err
	}
	if k.index(func(have *keysv1.Key) bool {
		return r.GetKeyAlias() != "" && have.GetKeyAlias() == r.GetKeyAlias() && have.GetRevokedAt() == nil
	}) >= 0 {
		return nil, status.Errorf(codes.AlreadyExists, "Key with alias '%s' already exists. Unique key aliases across all keys are required.", r.GetKeyAlias())
	}
	plain := virtualkey.New()
	id := "key_" + r.GetKeyAlias()
	if r.GetKeyAlias() == "" {
		id += strconv.Itoa(len(k.keys))
	}
	key := &keysv1.Key{
		KeyId: id, Token: virtualkey.Token(plain.Reveal()), KeyName: virtualkey.Name(plain), KeyAlias: r.GetKeyAlias(),
		TeamId: r.GetTeamId(), UserId: r.GetUserId(), Models: r.GetModels(), Limits: r.GetLimits(), Metadata: r.GetMetadata(),
		Duration: r.GetDuration(), Tags: r.GetTags(), Aliases: r.GetAliases(), AllowedRoutes: r.GetAllowedRoutes(), Blocked: r.GetBlocked(),
		CreatedAt: noon, UpdatedAt: noon,
	}
	live(key)
	k.keys = append(k.keys, key)
	return &keysv1.CreateKeyResponse{Key: proto.CloneOf(key), Secret: plain.Reveal()}, nil
}

// window is what the key service takes for a window, more or less.
var window = regexp.MustCompile(`^([1-9]\d{0,3}(mo|[smhdw]).*)?$`)

func checkWindow(l *keysv1.Limits) error {
	if !window.MatchString(l.GetBudgetDuration()) {
		return status.Error(codes.InvalidArgument, "budget_duration: no duration")
	}
	return nil
}

// live ends a key a day after noon if it has a duration at all.
func live(key *keysv1.Key) {
	if key.GetDuration() == "-1" {
		key.Duration = ""
	}
	key.ExpiresAt = nil
	if key.GetDuration() != "" {
		key.ExpiresAt = timestamppb.New(noon.AsTime().Add(24 * time.Hour))
	}
}

func (k *keysvc) RevokeKeys(_ context.Context, r *keysv1.RevokeKeysRequest) (*keysv1.RevokeKeysResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked = r
	out := &keysv1.RevokeKeysResponse{}
	for _, key := range k.keys {
		if slices.Contains(r.GetTokens(), key.GetToken()) || slices.Contains(r.GetKeyAliases(), key.GetKeyAlias()) ||
			r.GetUserId() != "" && r.GetUserId() == key.GetUserId() || r.GetTeamId() != "" && r.GetTeamId() == key.GetTeamId() {
			key.RevokedAt = noon
			out.Keys = append(out.Keys, key)
		}
	}
	if len(out.GetKeys()) == 0 {
		return nil, status.Error(codes.NotFound, "none of the keys, sessions and teams that were named exists")
	}
	return out, nil
}

func (k *keysvc) find(ref string) (*keysv1.Key, error) {
	i := k.index(func(have *keysv1.Key) bool {
		return have.GetToken() == ref || have.GetKeyId() == ref || have.GetKeyAlias() == ref || k.old[ref] == have.GetKeyId()
	})
	if i < 0 {
		return nil, status.Error(codes.NotFound, "no such key")
	}
	return k.keys[i], nil
}

func (k *keysvc) GetKey(_ context.Context, r *keysv1.GetKeyRequest) (*keysv1.GetKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.find(r.GetKeyId())
	return &keysv1.GetKeyResponse{Key: proto.CloneOf(key)}, err
}

func (k *keysvc) VerifyKey(_ context.Context, r *keysv1.VerifyKeyRequest) (*keysv1.VerifyKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.find(r.GetToken())
	if err != nil || key.GetRevokedAt() != nil || key.GetBlocked() {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	}
	return &keysv1.VerifyKeyResponse{Key: proto.CloneOf(key)}, nil
}

func (k *keysvc) UpdateKey(ctx context.Context, r *keysv1.UpdateKeyRequest) (*keysv1.UpdateKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.updated = r
	k.by, _ = metadata.FromIncomingContext(ctx)
	key, err := k.find(r.GetKey().GetKeyId())
	if err != nil {
		return nil, err
	}
	if err := checkWindow(r.GetKey().GetLimits()); err != nil {
		return nil, err
	}
	err = apply(key, r.GetKey(), r.GetUpdateMask().GetPaths())
	return &keysv1.UpdateKeyResponse{Key: proto.CloneOf(key)}, err
}

// apply copies what a mask names.
func apply(to, from *keysv1.Key, paths []string) error {
	for _, path := range paths {
		if limit, ok := strings.CutPrefix(path, "limits."); ok {
			if to.GetLimits() == nil {
				to.Limits = &keysv1.Limits{}
			}
			if err := copyField(to.GetLimits(), from.GetLimits(), limit); err != nil {
				return err
			}
			continue
		}
		if err := copyField(to, from, path); err != nil {
			return err
		}
		if path == "duration" {
			live(to)
		}
	}
	return nil
}

func copyField(to, from proto.Message, name string) error {
	f := to.ProtoReflect().Descriptor().Fields().ByTextName(name)
	switch {
	case f == nil:
		return status.Errorf(codes.InvalidArgument, "update_mask: %q cannot be changed", name)
	case from.ProtoReflect().Has(f):
		to.ProtoReflect().Set(f, from.ProtoReflect().Get(f))
	default:
		to.ProtoReflect().Clear(f)
	}
	return nil
}

func (k *keysvc) RotateKey(_ context.Context, r *keysv1.RotateKeyRequest) (*keysv1.RotateKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rotated = r
	key, err := k.find(r.GetKeyId())
	if err != nil {
		return nil, err
	}
	if err := checkWindow(r.GetKey().GetLimits()); err != nil {
		return nil, err
	}
	if err := apply(key, r.GetKey(), r.GetUpdateMask().GetPaths()); err != nil {
		return nil, err
	}
	plain := virtualkey.New()
	k.old[key.GetToken()] = key.GetKeyId()
	key.Token, key.KeyName, key.RotatedAt = virtualkey.Token(plain.Reveal()), virtualkey.Name(plain), noon
	return &keysv1.RotateKeyResponse{Key: proto.CloneOf(key), Secret: plain.Reveal()}, nil
}

func (k *keysvc) BlockKey(_ context.Context, r *keysv1.BlockKeyRequest) (*keysv1.BlockKeyResponse, error) {
	key, err := k.block(r.GetKeyId(), true)
	return &keysv1.BlockKeyResponse{Key: key}, err
}

func (k *keysvc) UnblockKey(_ context.Context, r *keysv1.UnblockKeyRequest) (*keysv1.UnblockKeyResponse, error) {
	key, err := k.block(r.GetKeyId(), false)
	return &keysv1.UnblockKeyResponse{Key: key}, err
}

func (k *keysvc) block(ref string, blocked bool) (*keysv1.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.find(ref)
	if err != nil {
		return nil, err
	}
	key.Blocked = blocked
	return proto.CloneOf(key), nil
}

func (k *keysvc) ListKeys(_ context.Context, r *keysv1.ListKeysRequest) (*keysv1.ListKeysResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []*keysv1.Key
	for _, key := range k.keys {
		if listed(key, r) {
			found = append(found, proto.CloneOf(key))
		}
	}
	if r.GetSortBy() == keysv1.KeySort_KEY_SORT_KEY_ALIAS {
		slices.SortStableFunc(found, func(a, b *keysv1.Key) int { return cmp.Compare(a.GetKeyAlias(), b.GetKeyAlias()) })
	}
	if !r.GetAscending() {
		slices.Reverse(found)
	}
	part, next := pageOf(found, r.GetPageToken(), int(r.GetSkip()), int(r.GetPageSize()))
	out := &keysv1.ListKeysResponse{Keys: part, NextPageToken: next}
	if r.GetIncludeTotal() {
		out.TotalCount = proto.Int64(int64(len(found)))
	}
	return out, nil
}

func listed(key *keysv1.Key, r *keysv1.ListKeysRequest) bool {
	ended := key.GetRevokedAt() != nil
	return (r.GetTeamId() == "" || r.GetTeamId() == key.GetTeamId()) && (r.GetUserId() == "" || r.GetUserId() == key.GetUserId()) &&
		(r.GetKeyAlias() == "" || r.GetKeyAlias() == key.GetKeyAlias()) && (r.GetToken() == "" || r.GetToken() == key.GetToken()) &&
		(ended == (r.GetStatus() == keysv1.KeyStatus_KEY_STATUS_REVOKED) || r.GetIncludeEnded())
}

// pageOf is a page of a list; its token is a place.
func pageOf[T any](list []T, token string, skip, size int) (part []T, next string) {
	from, _ := strconv.Atoi(token) // empty: the first page
	from = min(from+skip, len(list))
	end := min(from+size, len(list))
	if end < len(list) {
		next = strconv.Itoa(end)
	}
	return list[from:end], next
}

func (k *keysvc) index(which func(*keysv1.Key) bool) int { return slices.IndexFunc(k.keys, which) }

// teamsvc is its other half.
type teamsvc struct {
	keysv1.UnimplementedTeamServiceServer
	mu      sync.Mutex
	byID    map[string]*keysv1.Team
	ensured []*keysv1.EnsureTeamRequest
	updated *keysv1.UpdateTeamRequest
	deleted []string
}

func (s *teamsvc) EnsureTeam(_ context.Context, r *keysv1.EnsureTeamRequest) (*keysv1.EnsureTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkWindow(r.GetLimits()); err != nil {
		return nil, err
	}
	s.ensured = append(s.ensured, r)
	if team, ok := s.byID[r.GetTeamId()]; ok && team.GetDeletedAt() == nil {
		return &keysv1.EnsureTeamResponse{Team: team}, nil
	}
	team := &keysv1.Team{
		TeamId: r.GetTeamId(), TeamAlias: r.GetTeamAlias(), Limits: r.GetLimits(), Models: r.GetModels(), Metadata: r.GetMetadata(),
		Status: keysv1.TeamStatus_TEAM_STATUS_ACTIVE, CreatedAt: noon, UpdatedAt: noon,
	}
	s.byID[r.GetTeamId()] = team
	return &keysv1.EnsureTeamResponse{Team: team, Created: true}, nil
}

func (s *teamsvc) GetTeam(_ context.Context, r *keysv1.GetTeamRequest) (*keysv1.GetTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	team, err := s.find(r.GetTeamId())
	return &keysv1.GetTeamResponse{Team: team}, err
}

func (s *teamsvc) find(id string) (*keysv1.Team, error) {
	if team, ok := s.byID[id]; ok {
		return team, nil
	}
	return nil, status.Error(codes.NotFound, "no such team")
}

func (s *teamsvc) ListTeams(_ context.Context, r *keysv1.ListTeamsRequest) (*keysv1.ListTeamsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*keysv1.Team
	for _, team := range s.byID {
		if (r.GetIncludeDeleted() || team.GetDeletedAt() == nil) && (r.GetTeamAlias() == "" || r.GetTeamAlias() == team.GetTeamAlias()) {
			found = append(found, team)
		}
	}
	slices.SortFunc(found, func(a, b *keysv1.Team) int { return cmp.Compare(a.GetTeamId(), b.GetTeamId()) })
	part, next := pageOf(found, r.GetPageToken(), int(r.GetSkip()), int(r.GetPageSize()))
	return &keysv1.ListTeamsResponse{Teams: part, NextPageToken: next, TotalCount: proto.Int64(int64(len(found)))}, nil
}

func (s *teamsvc) UpdateTeam(_ context.Context, r *keysv1.UpdateTeamRequest) (*keysv1.UpdateTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updated = r
	team, err := s.find(r.GetTeam().GetTeamId())
	if err != nil {
		return nil, err
	}
	if err := checkWindow(r.GetTeam().GetLimits()); err != nil {
		return nil, err
	}
	for _, path := range r.GetUpdateMask().GetPaths() {
		to, from := proto.Message(team), proto.Message(r.GetTeam())
		name := path
		if limit, ok := strings.CutPrefix(path, "limits."); ok {
			if team.GetLimits() == nil {
				team.Limits = &keysv1.Limits{}
			}
			to, from, name = team.GetLimits(), r.GetTeam().GetLimits(), limit
		}
		if err := copyField(to, from, name); err != nil {
			return nil, err
		}
	}
	return &keysv1.UpdateTeamResponse{Team: team}, nil
}

func (s *teamsvc) DeleteTeam(_ context.Context, r *keysv1.DeleteTeamRequest) (*keysv1.DeleteTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = append(s.deleted, r.GetTeamId())
	s.byID[r.GetTeamId()].DeletedAt = noon
	return &keysv1.DeleteTeamResponse{}, nil
}

func (s *teamsvc) SetTeamStatus(_ context.Context, r *keysv1.SetTeamStatusRequest) (*keysv1.SetTeamStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	team, err := s.find(r.GetTeamId())
	if err != nil {
		return nil, err
	}
	team.Status = r.GetStatus()
	return &keysv1.SetTeamStatusResponse{Team: team}, nil
}
