package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/store"
)

// everyLimit is limits of which none is left out.
func everyLimit() key.Limits {
	budget, soft, more := 5*money.USD, 4*money.USD, money.USD
	rpm, tpm, parallel := int64(60), int64(100_000), int64(0)
	until := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	return key.Limits{
		MaxBudgetNanoUSD: &budget, RPMLimit: &rpm, TPMLimit: &tpm, MaxParallelRequests: &parallel, BudgetDuration: "30d",
		Finer: key.Finer{
			BudgetLimits:      []key.Budget{{MaxBudgetNanoUSD: money.USD, BudgetDuration: "24h"}, {MaxBudgetNanoUSD: 9 * money.USD}},
			SoftBudgetNanoUSD: &soft,
			ModelMaxBudget:    map[string]key.Budget{"claude-sonnet-5": {MaxBudgetNanoUSD: 3, BudgetDuration: "1mo"}},
			ModelRPMLimit:     map[string]int64{"claude-sonnet-5": 7}, ModelTPMLimit: map[string]int64{"*": 0},
			TempBudgetIncreaseNanoUSD: &more, TempBudgetExpiresAt: &until, BudgetMode: key.Soft,
		},
	}
}

var noTimes = cmpopts.IgnoreFields(key.Key{}, "UpdatedAt", "ExpiresAt")

func TestAnUpdateChangesWhatItNamesAndNothingElse(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure(t, "org-2")
	before := b.issue(t, "sess-1", "idem-1").Key
	all := key.Attributes{
		KeyAlias: "x", TeamID: "org-2", UserID: "sess-2", Models: []string{"m"}, Tags: []string{"t"},
		AllowedCIDRs: []string{"10.1.2.3/8", "192.0.2.1"}, AllowedRoutes: []string{"/v1/messages"},
		Aliases: map[string]string{"a": "m"}, Limits: everyLimit(), Metadata: []byte(`{"a": 1}`), Duration: "1h", Blocked: true,
	}
	want := before
	revision := int64(0)
	step := func(fields []string, change func(*key.Key)) {
		t.Helper()
		k, got, err := b.UpdateKey(t.Context(), admin, before.KeyID, key.Update{Fields: fields, Attributes: all})
		if err != nil {
			t.Fatalf("update %s: %v", fields, err)
		}
		if !k.UpdatedAt.After(want.UpdatedAt) {
			t.Errorf("after %s: updated at %s, before at %s", fields, k.UpdatedAt, want.UpdatedAt)
		}
		want.UpdatedAt = k.UpdatedAt
		change(&want)
		stored, err := b.Key(t.Context(), before.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, stored, noTimes); diff != "" {
			t.Errorf("after %s (-want +stored):\n%s", fields, diff)
		}
		if diff := cmp.Diff(k, stored); diff != "" {
			t.Errorf("%s (-returned +stored):\n%s", fields, diff)
		}
		if revision++; got != revision {
			t.Errorf("%s: revision %d, want %d", fields, got, revision)
		}
	}
	step([]string{"key_alias", "tags"}, func(k *key.Key) { k.KeyAlias, k.Tags = "x", []string{"t"} })
	step([]string{"team_id"}, func(k *key.Key) { k.TeamID = "org-2" })
	step([]string{"user_id"}, func(k *key.Key) { k.UserID, k.IdempotencyKey = "sess-2", "" })
	step([]string{"models"}, func(k *key.Key) { k.Models = []string{"m"} })
	step([]string{"aliases"}, func(k *key.Key) { k.Aliases = map[string]string{"a": "m"} })
	step([]string{"allowed_cidrs"}, func(k *key.Key) { k.AllowedCIDRs = []string{"10.0.0.0/8", "192.0.2.1/32"} })
	step([]string{"allowed_routes"}, func(k *key.Key) { k.AllowedRoutes = []string{"/v1/messages"} })
	step([]string{"metadata.a"}, func(k *key.Key) { k.Metadata = []byte(`{"a": 1}`) })
	step([]string{"limits.rpm_limit"}, func(k *key.Key) { k.RPMLimit = all.Limits.RPMLimit })
	step([]string{"limits.budget_limits"}, func(k *key.Key) { k.Finer.BudgetLimits = all.Limits.Finer.BudgetLimits })
	step([]string{"limits"}, func(k *key.Key) { k.Limits = all.Limits })
	step([]string{"duration"}, func(k *key.Key) { k.Duration = "1h" })
	step([]string{"blocked"}, func(k *key.Key) { k.Blocked = true })
	all.Tags = []string{"t", "u"}
	step([]string{"blocked", "tags"}, func(k *key.Key) { k.Tags = []string{"t", "u"} }) // nothing new to stop

	// The same again is no change; what is absent is cleared.
	_, again, err := b.UpdateKey(t.Context(), admin, "x", key.Update{
		Fields: []string{"limits", "metadata", "blocked", "allowed_cidrs"}, Attributes: all,
	})
	if err != nil || again != revision {
		t.Errorf("the repeat = revision %d, %v, want %d", again, err, revision)
	}
	all = key.Attributes{Duration: key.Forever}
	step([]string{
		"key_alias", "team_id", "user_id", "models", "tags", "aliases", "allowed_cidrs", "allowed_routes", "limits", "metadata", "duration", "blocked",
	}, func(k *key.Key) {
		*k = key.Key{
			KeyID: k.KeyID, Token: k.Token, KeyName: k.KeyName, CreatedAt: k.CreatedAt, Models: []string{}, Tags: []string{},
			AllowedCIDRs: []string{}, AllowedRoutes: []string{}, Aliases: map[string]string{}, Metadata: []byte(`{}`),
		}
	})
	if k, err := b.Key(t.Context(), before.KeyID); err != nil || k.ExpiresAt != nil {
		t.Errorf("expires_at = %v, %v, want none", k.ExpiresAt, err)
	}
	var reasons []string
	for _, e := range b.events(t, 0) {
		reasons = append(reasons, e.Reason)
	}
	if diff := cmp.Diff([]string{"", "", "", "", "", "", "", "", "", "", "", "", "blocked", "", ""}, reasons); diff != "" {
		t.Errorf("reasons of the events (-want +got):\n%s", diff)
	}
}

func TestAnUpdateIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	k := b.create(t, key.Attributes{}).Key
	b.create(t, key.Attributes{KeyAlias: "taken"})
	more := money.USD
	for _, tt := range []struct {
		name, field string
		a           key.Attributes
		kind        fault.Kind
		text        string
	}{
		{"nothing is named", "", key.Attributes{}, fault.Invalid, "update_mask is required: name what changes"},
		{"what cannot change", "token", key.Attributes{}, fault.Invalid, `update_mask: "token" cannot be changed`},
		{"an unknown limit", "limits.x", key.Attributes{}, fault.Invalid, `update_mask: "limits.x" cannot be changed`},
		{"a taken alias", "key_alias", key.Attributes{KeyAlias: "taken"}, fault.Exists, "Key with alias 'taken' already exists. Unique key aliases across all keys are required."},
		{"an unknown team", "team_id", key.Attributes{TeamID: "org-9"}, fault.NotFound, "team org-9 not found; make it with EnsureTeam first"},
		{
			"half of a temporary increase", "limits.temp_budget_increase_nano_usd",
			key.Attributes{Limits: key.Limits{Finer: key.Finer{TempBudgetIncreaseNanoUSD: &more}}},
			fault.Invalid, "temp_budget_increase and temp_budget_expires_at are given both, or neither",
		},
		{"no network", "allowed_cidrs", key.Attributes{AllowedCIDRs: []string{"10.0.0.0/99"}}, fault.Invalid, `allowed_cidrs: "10.0.0.0/99" is not a network such as 10.0.0.0/8 or 2001:db8::/32`},
	} {
		u := key.Update{Attributes: tt.a}
		if tt.field != "" {
			u.Fields = []string{tt.field}
		}
		_, _, err := b.UpdateKey(t.Context(), admin, k.KeyID, u)
		wantFault(t, err, tt.kind, tt.text)
	}
	b.revoke(t, key.Selection{KeyIDs: []string{k.KeyID}})
	_, _, err := b.UpdateKey(t.Context(), admin, k.KeyID, key.Update{Fields: []string{"tags"}})
	wantFault(t, err, fault.Precondition, "key "+k.KeyID+" is revoked")
}

func TestTheOperatorsBoundsHoldForWhatIsAsked(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	cent, dollar, old := money.USD/100, money.USD, 5*money.USD
	k := b.create(t, key.Attributes{Limits: key.Limits{MaxBudgetNanoUSD: &old}}).Key
	bounded := key.NewService(store.New(b.db), key.Policy{
		SessionDuration: "7d",
		Defaults:        key.Defaults{Bounds: key.Bounds{MaxBudgetNanoUSD: &cent}, Models: []string{"m"}},
		Bounds:          key.Bounds{MaxBudgetNanoUSD: &dollar, Duration: "30d"},
	})
	c, err := bounded.IssueSessionKey(t.Context(), admin, key.IssueRequest{Attributes: key.Attributes{UserID: "s", TeamID: "o"}})
	if err != nil || *c.Key.MaxBudgetNanoUSD != cent || c.Key.Duration != "7d" || c.Key.Models[0] != "m" {
		t.Errorf("a session's key = %+v, %v, want the defaults", c.Key, err)
	}
	c, err = bounded.CreateKey(t.Context(), admin, key.CreateRequest{})
	if err != nil || *c.Key.MaxBudgetNanoUSD != cent || c.Key.Duration != "30d" {
		t.Errorf("a key = %+v, %v, want the default budget and the longest life", c.Key, err)
	}
	_, err = bounded.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{Limits: key.Limits{MaxBudgetNanoUSD: &old}}})
	wantFault(t, err, fault.Invalid, "max_budget is over max limit set in config - user_value=5; max_value=1")
	update := func(a key.Attributes, fields ...string) (key.Key, error) {
		k, _, err := bounded.UpdateKey(context.WithoutCancel(t.Context()), admin, k.KeyID, key.Update{Fields: fields, Attributes: a})
		return k, err
	}
	if got, err := update(key.Attributes{}, "tags"); err != nil || *got.MaxBudgetNanoUSD != old {
		t.Errorf("an old key = %+v, %v, want its budget", got, err)
	}
	_, err = update(key.Attributes{Duration: key.Forever}, "duration")
	wantFault(t, err, fault.Invalid, "duration is over max limit set in config - user_value=-1; max_value=30d")
	if got, err := update(key.Attributes{}, "limits", "duration"); err != nil || *got.MaxBudgetNanoUSD != dollar || got.Duration != "30d" {
		t.Errorf("a cleared key = %+v, %v, want the bounds", got, err)
	}
}
