package rpc_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

func TestCallsWithoutAMasterKeyAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	keys := keysv1.NewKeyServiceClient(s.dial(t, "sk-wrong-0123456789"))
	_, err := keys.GetKey(t.Context(), &keysv1.GetKeyRequest{KeyId: "x"})
	wantStatus(t, err, codes.Unauthenticated, "a master key is needed in `authorization: Bearer`")
	stream, err := keys.WatchKeys(t.Context(), &keysv1.WatchKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantStatus(t, err, codes.Unauthenticated, "a master key is needed in `authorization: Bearer`")
}

func TestAnIssuedKeyComesWithAllThatASandboxNeeds(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	metadata, err := structpb.NewStruct(map[string]any{"repo": "a/b", "n": 1.5, "deep": map[string]any{"list": []any{true, nil}}})
	if err != nil {
		t.Fatal(err)
	}
	limits := &keysv1.Limits{
		MaxBudgetNanoUsd: proto.Int64(5_000_000_000), RpmLimit: proto.Int64(0), BudgetDuration: "24h",
	}
	resp, err := s.keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: "sess-1", TeamId: "org-1", TeamAlias: "Acme", Duration: "24h", Limits: limits,
		Models: []string{"claude-sonnet-5"}, Metadata: metadata, Tags: []string{"ci"},
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := resp.GetSecret()
	wantEnv := map[string]string{
		"ANTHROPIC_API_KEY": secret, "ANTHROPIC_BASE_URL": "https://llm.example.com",
		"LLM_PROXY_API_KEY": secret, "LLM_PROXY_URL": "https://llm.example.com",
	}
	if diff := cmp.Diff(wantEnv, resp.GetEnv()); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	opencode := resp.GetOpencodeConfig().AsMap()["provider"]
	want := any(map[string]any{"anthropic": map[string]any{"options": map[string]any{"baseURL": "https://llm.example.com/v1", "apiKey": secret}}})
	if diff := cmp.Diff(want, opencode); diff != "" {
		t.Errorf("provider of opencode.json (-want +got):\n%s", diff)
	}
	verified, err := s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: virtualkey.Token(secret)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(resp.GetKey(), verified.GetKey(), protocmp.Transform()); diff != "" {
		t.Errorf("verified key (-issued +verified):\n%s", diff)
	}
	k := verified.GetKey()
	if diff := cmp.Diff([]proto.Message{limits, metadata}, []proto.Message{k.GetLimits(), k.GetMetadata()}, protocmp.Transform()); diff != "" {
		t.Errorf("limits and metadata (-asked +verified):\n%s", diff)
	}
	if k.GetExpiresAt().AsTime().Sub(k.GetCreatedAt().AsTime()) != 24*time.Hour || k.RevokedAt != nil {
		t.Errorf("key = %v, want a life of 24h and no revoked_at", k)
	}
	if team := verified.GetTeam(); team.GetTeamId() != "org-1" || team.GetTeamAlias() != "Acme" || team.GetStatus() != keysv1.TeamStatus_TEAM_STATUS_ACTIVE {
		t.Errorf("team = %v", team)
	}
}

func TestKeysAreCreatedListedBlockedAndRevoked(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	created, err := s.keys.CreateKey(t.Context(), &keysv1.CreateKeyRequest{KeyAlias: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	id, token := created.GetKey().GetKeyId(), virtualkey.Token(created.GetSecret())
	if created.GetKey().ExpiresAt != nil {
		t.Error("a key without a duration expires")
	}
	_, err = s.keys.CreateKey(t.Context(), &keysv1.CreateKeyRequest{KeyAlias: "ci"})
	wantStatus(t, err, codes.AlreadyExists, "Key with alias 'ci' already exists. Unique key aliases across all keys are required.")
	listed, err := s.keys.ListKeys(t.Context(), &keysv1.ListKeysRequest{PageSize: 1})
	if err != nil || len(listed.GetKeys()) != 1 || listed.GetNextPageToken() != "" {
		t.Errorf("ListKeys = %v, %v, want the one key", listed, err)
	}
	if _, err := s.keys.BlockKey(t.Context(), &keysv1.BlockKeyRequest{KeyId: "ci"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: token})
	wantStatus(t, err, codes.Unauthenticated, "invalid api key")
	if _, err := s.keys.UnblockKey(t.Context(), &keysv1.UnblockKeyRequest{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: token}); err != nil {
		t.Errorf("verify after unblock: %v", err)
	}
	revoked := s.revoke(t, &keysv1.RevokeKeysRequest{Tokens: []string{token}})
	if len(revoked.GetKeys()) != 1 || revoked.GetKeys()[0].RevokedAt == nil || revoked.GetRevision() != 3 {
		t.Errorf("RevokeKeys = %v, want the key and revision 3", revoked)
	}
	_, err = s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: token})
	wantStatus(t, err, codes.Unauthenticated, "invalid api key")
}

func TestTeamsAreServed(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	ensured, err := s.teams.EnsureTeam(t.Context(), &keysv1.EnsureTeamRequest{TeamId: "org-1", TeamAlias: "Acme"})
	if err != nil || !ensured.GetCreated() {
		t.Fatalf("EnsureTeam = %v, %v", ensured, err)
	}
	set, err := s.teams.SetTeamStatus(t.Context(), &keysv1.SetTeamStatusRequest{
		TeamId: "org-1", Status: keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED, Reason: "Buy credits.",
	})
	if err != nil || set.GetRevision() != 1 {
		t.Fatalf("SetTeamStatus = %v, %v, want revision 1", set, err)
	}
	got, err := s.teams.GetTeam(t.Context(), &keysv1.GetTeamRequest{TeamId: "org-1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set.GetTeam(), got.GetTeam(), protocmp.Transform()); diff != "" {
		t.Errorf("team (-set +got):\n%s", diff)
	}
	if got.GetTeam().GetStatusReason() != "Buy credits." {
		t.Errorf("status_reason = %q", got.GetTeam().GetStatusReason())
	}
	listed, err := s.teams.ListTeams(t.Context(), &keysv1.ListTeamsRequest{})
	if err != nil || len(listed.GetTeams()) != 1 {
		t.Errorf("ListTeams = %v, %v, want one team", listed, err)
	}
	_, err = s.teams.GetTeam(t.Context(), &keysv1.GetTeamRequest{TeamId: "org-2"})
	wantStatus(t, err, codes.NotFound, "team org-2 not found")
	_, err = s.teams.SetTeamStatus(t.Context(), &keysv1.SetTeamStatusRequest{TeamId: "org-1"})
	wantStatus(t, err, codes.InvalidArgument, "status is required: active, blocked, exhausted or suspended")
}
