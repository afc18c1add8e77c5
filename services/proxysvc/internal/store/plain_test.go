package store

import (
	"slices"
	"strconv"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestALimitCountsWhatOthersSpendWhoKnewOfNone has a replica learn that a key and its
// team have no shared rows, before another one meets a limit of theirs.
func TestALimitCountsWhatOthersSpendWhoKnewOfNone(t *testing.T) {
	t.Parallel()
	for name, mine := range map[string][]ledger.Claim{
		"in batches without limits":                 nil,
		"in batches that decide on another's limit": ofKey("other", budget(money.USD)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, Schema, Migrations)
			s := New(db)
			one, stopOne := startWriterOn(t, s, settings)
			defer stopOne()
			two, stopTwo := startWriter(t, db, settings)
			defer stopTwo()
			team := []ledger.Claim{{Account: ledger.AccountID{Kind: ledger.KindTeam, ID: "team"}, Who: "team", Limits: budget(money.USD)}}
			for range 3 {
				spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			}
			if n := s.plain.known(); n != 4 {
				t.Errorf("%d accounts are known to have no shared rows, want the key's, the team's and their models'", n)
			}
			spend(t, two, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: team})
			spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			auditClean(t, s)
			spend(t, two, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: ofKey("k", budget(money.USD))})
			spend(t, one, &ledger.Admission{Request: request("k", "team"), Hold: 100, Claims: mine})
			auditClean(t, s)
			if s.plain.known() == 0 {
				t.Error("nothing is known to have no shared rows")
			}
		})
	}
}

// known is how many accounts are known to have no shared row.
func (p *plain) known() (n int) {
	for _, of := range p.owners {
		if n += len(of.models); of.own {
			n++
		}
	}
	return n
}

func TestWhatIsKnownOfAModelSaysNothingOfItsOwner(t *testing.T) {
	t.Parallel()
	key, team := ledger.AccountID{Kind: ledger.KindKey, ID: "k"}, ledger.AccountID{Kind: ledger.KindTeam, ID: "k"}
	of := func(model string) ledger.AccountID {
		return ledger.AccountID{Kind: ledger.KindKeyModel, ID: "k", Model: model}
	}
	p := plain{owners: map[owner]*bare{}}
	limited := map[ledger.AccountID]bool{key: true, of("opus"): true}
	p.learn(slices.Values([]ledger.AccountID{key, of("sonnet"), of("opus"), of("")}), func(id ledger.AccountID) bool { return limited[id] })
	for id, want := range map[ledger.AccountID]bool{key: true, team: true, of("sonnet"): false, of("opus"): true, of(""): false, of("haiku"): true} {
		if p.lacks(id) != want {
			t.Errorf("%+v is looked for: %t, want %t", id, !want, want)
		}
	}
	p.forget("key_model", "k\nhaiku")
	if !p.lacks(of("sonnet")) {
		t.Error("an owner with a new shared row is known still")
	}
	for n := range maxPlain + 1 {
		p.learn(slices.Values([]ledger.AccountID{{Kind: ledger.KindKey, ID: strconv.Itoa(n)}}), func(ledger.AccountID) bool { return false })
	}
	if last := (ledger.AccountID{Kind: ledger.KindKey, ID: strconv.Itoa(maxPlain)}); len(p.owners) != 1 || p.lacks(last) {
		t.Errorf("%d owners are known, want the last one after too many", len(p.owners))
	}
}
