package rpc_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// everyLimit is limits of which none is left out.
func everyLimit() *keysv1.Limits {
	return &keysv1.Limits{
		MaxBudgetNanoUsd: proto.Int64(5), RpmLimit: proto.Int64(6), TpmLimit: proto.Int64(7), MaxParallelRequests: proto.Int64(8),
		BudgetDuration: "30d", BudgetLimits: []*keysv1.BudgetLimit{{MaxBudgetNanoUsd: 1, BudgetDuration: "1d"}},
		SoftBudgetNanoUsd: proto.Int64(4), ModelMaxBudget: map[string]*keysv1.BudgetLimit{"m": {MaxBudgetNanoUsd: 9}},
		ModelRpmLimit: map[string]int64{"m": 1}, ModelTpmLimit: map[string]int64{"m": 2},
		TempBudgetIncreaseNanoUsd: proto.Int64(3), TempBudgetExpiresAt: &timestamppb.Timestamp{Seconds: 2_000_000_000, Nanos: 5000},
		BudgetMode: keysv1.BudgetMode_BUDGET_MODE_SOFT,
	}
}

func TestAllOfAKeyIsStoredAndVerified(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	resp, err := s.keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: "sess-1", TeamId: "org-1", Limits: everyLimit(),
		AllowedCidrs: []string{"10.1.0.0/8"}, AllowedRoutes: []string{"/v1/messages"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.teams.UpdateTeam(t.Context(), &keysv1.UpdateTeamRequest{
		Team: &keysv1.Team{TeamId: "org-1", Limits: everyLimit()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limits"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: resp.GetKey().GetToken()})
	if err != nil {
		t.Fatal(err)
	}
	want := []any{everyLimit(), everyLimit(), []string{"10.0.0.0/8"}, []string{"/v1/messages"}}
	k := got.GetKey()
	if diff := cmp.Diff(want, []any{k.GetLimits(), got.GetTeam().GetLimits(), k.GetAllowedCidrs(), k.GetAllowedRoutes()}, protocmp.Transform()); diff != "" {
		t.Errorf("verified (-asked +got):\n%s", diff)
	}
}

func TestRESTChangesWhatTheBodyHolds(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	resp, err := s.keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: "sess-1", TeamId: "org-1", Limits: everyLimit(), Duration: "1h", Models: []string{"m"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(resp.GetKey())
	for _, tt := range []struct {
		body   string
		change func()
	}{
		{`{"limits":{"rpm_limit":"60"}}`, func() { want.Limits.RpmLimit = proto.Int64(60) }},
		{`{"limits":{"max_budget_nano_usd":null,"model_max_budget":{}}}`, func() { want.Limits.MaxBudgetNanoUsd, want.Limits.ModelMaxBudget = nil, nil }},
		{`{"duration":null}`, func() { want.Duration, want.ExpiresAt = "", nil }},
		{`{"models":[],"tags":["t"]}`, func() { want.Models, want.Tags = nil, []string{"t"} }},
		{`{"metadata":{"a":{"b.c":1}}}`, func() { want.Metadata = mustStruct(t, map[string]any{"a": map[string]any{"b.c": 1.0}}) }},
		{`{"metadata":null}`, func() { want.Metadata = mustStruct(t, nil) }},
		{`{"limits":null}`, func() { want.Limits = &keysv1.Limits{} }},
	} {
		code, doc := s.call(t, "PATCH", "/v1/keys/"+want.GetKeyId(), bearer, tt.body)
		if code != http.StatusOK {
			t.Fatalf("%s = %d %v", tt.body, code, doc)
		}
		tt.change()
		got, err := s.keys.GetKey(t.Context(), &keysv1.GetKeyRequest{KeyId: want.GetKeyId()})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.GetKey(), protocmp.Transform(), protocmp.IgnoreFields(want, "updated_at")); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", tt.body, diff)
		}
	}
	for body, text := range map[string]string{
		`{}`:                      "update_mask is required: name what changes",
		`{"token":"x"}`:           `update_mask: "token" cannot be changed`,
		`{"allowed_cidrs":["x"]}`: `allowed_cidrs: "x" is not a network such as 10.0.0.0/8 or 2001:db8::/32`,
	} {
		if code, doc := s.call(t, "PATCH", "/v1/keys/"+want.GetKeyId(), bearer, body); code != http.StatusBadRequest || doc["message"] != text {
			t.Errorf("%s = %d %v, want 400 %q", body, code, doc, text)
		}
	}
	code, doc := s.call(t, "PATCH", "/v1/teams/org-1", bearer, `{"team_alias":"Acme","limits":{"tpm_limit":"5"}}`)
	if team, _ := doc["team"].(map[string]any); code != http.StatusOK || team["team_alias"] != "Acme" {
		t.Errorf("team = %d %v", code, doc)
	}
	code, doc = s.call(t, "DELETE", "/v1/teams/org-1", bearer, "")
	if code != http.StatusOK || doc["revoked_keys"] != "1" {
		t.Errorf("delete = %d %v, want one key revoked", code, doc)
	}
}

func TestTheIdempotencyHeaderIsTakenWhenTheFieldIsEmpty(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "h-1", "litellm-changed-by", "ann")
	issue := func(ctx context.Context, key string) *keysv1.IssueSessionKeyResponse {
		t.Helper()
		resp, err := s.keys.IssueSessionKey(ctx, &keysv1.IssueSessionKeyRequest{UserId: "sess-1", TeamId: "org-1", IdempotencyKey: key})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first, second, third := issue(ctx, ""), issue(ctx, ""), issue(ctx, "f-1")
	if first.GetKey().GetKeyId() != second.GetKey().GetKeyId() || third.GetKey().GetKeyId() == first.GetKey().GetKeyId() {
		t.Errorf("keys %s, %s, %s, want the first two the same", first.GetKey().GetKeyId(), second.GetKey().GetKeyId(), third.GetKey().GetKeyId())
	}
	rotate := func() *keysv1.RotateKeyResponse {
		t.Helper()
		resp, err := s.keys.RotateKey(ctx, &keysv1.RotateKeyRequest{KeyId: third.GetKey().GetKeyId(), GracePeriod: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	lost, again := rotate(), rotate()
	for secret, want := range map[string]codes.Code{third.GetSecret(): codes.OK, lost.GetSecret(): codes.Unauthenticated, again.GetSecret(): codes.OK} {
		_, err := s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: virtualkey.Token(secret)})
		if status.Code(err) != want {
			t.Errorf("verify = %v, want %s", err, want)
		}
	}
	audit, err := s.keys.ListAudit(t.Context(), &keysv1.ListAuditRequest{Action: "key.rotate"})
	if err != nil || len(audit.GetEntries()) != 2 {
		t.Fatalf("audit = %v, %v, want two rotations", audit, err)
	}
	e := audit.GetEntries()[0]
	if e.GetChangedBy() != "ann" || e.GetActor() != "master" || e.GetKeyAfter().GetToken() != again.GetKey().GetToken() || e.GetTeamAfter() != nil {
		t.Errorf("entry = %v", e)
	}
	if strings.Contains(audit.String(), again.GetSecret()) {
		t.Error("the audit holds a secret")
	}
}

func TestScopesBoundWhatATokenMayCall(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	key := s.issue(t, "sess-1").GetKey().GetKeyId()
	for _, tt := range []struct {
		method, path, body string
		issue, read        int
	}{
		{"POST", "/v1/sessions/sess-2/key", `{"team_id":"org-1"}`, 200, 403},
		{"POST", "/v1/keys", `{}`, 200, 403},
		{"PUT", "/v1/teams/org-2", `{}`, 200, 403},
		{"GET", "/v1/keys/" + key, "", 200, 200},
		{"GET", "/v1/keys?include_total=true&sort_by=KEY_SORT_KEY_ALIAS&ascending=true", "", 403, 200},
		{"GET", "/v1/audit?entity=" + key, "", 403, 200},
		{"GET", "/v1/teams", "", 403, 200},
		{"PATCH", "/v1/keys/" + key, `{"tags":["t"]}`, 403, 403},
		{"POST", "/v1/keys/" + key + "/block", `{}`, 403, 403},
		{"POST", "/v1/keys:verify", `{"token":"x"}`, 403, 403},
		{"DELETE", "/v1/teams/org-1", "", 403, 403},
		{"PATCH", "/v1/teams/org-1", `{"team_alias":"x"}`, 403, 403},
		{"POST", "/v1/keys/" + key + "/rotate", `{}`, 200, 403},
		{"POST", "/v1/keys:revoke", `{"user_id":"sess-1"}`, 200, 403},
	} {
		for auth, want := range map[string]int{readToken: tt.read, issueToken: tt.issue} {
			if code, doc := s.call(t, tt.method, tt.path, "Bearer "+auth, tt.body); code != want {
				t.Errorf("%s %s with %s = %d %v, want %d", tt.method, tt.path, auth, code, doc, want)
			}
		}
	}
}

func TestAnExpiredKeyIsAnnounced(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	w := s.watch(t, 0, 0)
	created, err := s.keys.CreateKey(t.Context(), &keysv1.CreateKeyRequest{Duration: "0s"})
	if err != nil {
		t.Fatal(err)
	}
	w.wantRevoked(t, 1, created.GetKey().GetKeyId())
}

func TestAWatcherThatWasAwayForTooLongStartsOver(t *testing.T) {
	t.Parallel()
	s := start(t, options{poll: 20 * time.Millisecond, heartbeat: time.Second})
	s.issue(t, "sess-1")
	for range 3 {
		s.issue(t, "sess-1")
	}
	if _, err := s.db.Exec(t.Context(), `delete from keys.events where revision <= 2`); err != nil {
		t.Fatal(err)
	}
	stream, err := s.keys.WatchKeys(t.Context(), &keysv1.WatchKeysRequest{AfterRevision: 1})
	if err == nil {
		_, err = stream.Recv()
	}
	wantStatus(t, err, codes.FailedPrecondition, "the events after revision 1 are not kept any more: forget all keys and watch from 0")
	if m := s.watch(t, 2, 2).event(t); m.GetRevision() != 3 {
		t.Errorf("event = %v, want revision 3", m)
	}
	if _, err := s.db.Exec(t.Context(), `delete from keys.events`); err != nil {
		t.Fatal(err)
	}
	if stream, err = s.keys.WatchKeys(t.Context(), &keysv1.WatchKeysRequest{AfterRevision: 2}); err == nil {
		_, err = stream.Recv()
	}
	wantStatus(t, err, codes.FailedPrecondition, "the events after revision 2 are not kept any more: forget all keys and watch from 0")
	s.watch(t, 3, 3)
}
