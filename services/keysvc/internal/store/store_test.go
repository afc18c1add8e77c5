package store_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/store"
)

var admin = key.Caller{Actor: "master", RequestID: "req_1"}

// bundle is a service on a database of its own.
type bundle struct {
	*key.Service
	store *store.Store
	db    *pgxpool.Pool
}

func newBundle(t *testing.T) bundle {
	t.Helper()
	db := pgtest.New(t, store.Schema, store.Migrations)
	s := store.New(db)
	return bundle{key.NewService(s, key.Policy{SessionDuration: "30d"}), s, db}
}

func (b bundle) issue(t *testing.T, userID, idempotencyKey string) key.Created {
	t.Helper()
	c, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{
		Attributes: key.Attributes{UserID: userID, TeamID: "org-1"}, IdempotencyKey: idempotencyKey,
	})
	if err != nil {
		t.Fatalf("issue a key for %s: %v", userID, err)
	}
	return c
}

func (b bundle) create(t *testing.T, a key.Attributes) key.Created {
	t.Helper()
	c, err := b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: a})
	if err != nil {
		t.Fatalf("create key: %v", err)
	}
	return c
}

func (b bundle) ensure(t *testing.T, teamID string) {
	t.Helper()
	if _, _, err := b.EnsureTeam(t.Context(), admin, key.TeamAttributes{TeamID: teamID}); err != nil {
		t.Fatalf("ensure team: %v", err)
	}
}

func (b bundle) revoke(t *testing.T, s key.Selection) ([]key.Key, int64) {
	t.Helper()
	keys, revision, err := b.RevokeKeys(t.Context(), admin, s)
	if err != nil {
		t.Fatalf("revoke %+v: %v", s, err)
	}
	return keys, revision
}

// events returns what was appended after a revision.
func (b bundle) events(t *testing.T, after int64) []key.Event {
	t.Helper()
	events, _, err := b.store.Events(t.Context(), after, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func (b bundle) wantUsable(t *testing.T, c key.Created, usable bool) {
	t.Helper()
	g, err := b.VerifyKey(t.Context(), virtualkey.Token(c.Secret.Reveal()))
	switch {
	case usable && err != nil:
		t.Errorf("verify %s: %v, want it usable", c.Key.KeyID, err)
	case usable && g.Key.KeyID != c.Key.KeyID:
		t.Errorf("verify gave %s, want %s", g.Key.KeyID, c.Key.KeyID)
	case !usable && (fault.KindOf(err) != fault.Unauthenticated || fault.Text(err) != "invalid api key"):
		t.Errorf("verify %s: %v, want the Unauthenticated fault", c.Key.KeyID, err)
	}
}

func wantFault(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if fault.KindOf(err) != kind || fault.Text(err) != text {
		t.Errorf("got %v (kind %d), want %q (kind %d)", err, fault.KindOf(err), text, kind)
	}
}

func ids(keys []key.Key) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, k.KeyID)
	}
	return out
}

func wantIDs(t *testing.T, what string, got []key.Key, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), ids(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func column[T any](t *testing.T, b bundle, sql string, args ...any) []T {
	t.Helper()
	rows, _ := b.db.Query(t.Context(), sql, args...)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestAStoreThatCannotBeReachedIsUnavailable(t *testing.T) {
	t.Parallel()
	db, err := pgxpool.New(t.Context(), "postgres://u:p@127.0.0.1:1/d?sslmode=disable") // nothing listens there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	svc := key.NewService(store.New(db), key.Policy{SessionDuration: "30d"})
	const text = "the key store is not reachable; try again"
	_, err = svc.VerifyKey(t.Context(), virtualkey.Token("sk-x"))
	wantFault(t, err, fault.Unavailable, text)
	_, err = svc.CreateKey(t.Context(), admin, key.CreateRequest{})
	wantFault(t, err, fault.Unavailable, text)
	_, _, err = store.New(db).Events(t.Context(), 0, 1)
	wantFault(t, err, fault.Unavailable, text)
}

func TestACallerThatGaveUpIsNotAnOutage(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.VerifyKey(ctx, virtualkey.Token("sk-x"))
	if got := fault.KindOf(err); err == nil || got != fault.Internal {
		t.Errorf("verify: %v, want the context's own error", err)
	}
}
