package ledger

import (
	"fmt"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Refusal says why a request is not admitted. A refusal that is not Final goes
// away when other requests in flight end.
type Refusal struct {
	Final   bool
	Message string
}

// Error makes a Refusal an error.
func (r *Refusal) Error() string { return r.Message }

// Admit decides one admission against the accounts of its key and team, which
// are nil where nothing is limited. On success it takes the hold from both; a
// refusal changes neither, so a key and its team are decided together or not at
// all. It reads no clock and no other state.
func Admit(a *Admission, key, team *Account) *Refusal {
	if r := check("key", a.KeyLimits, key, a.Hold); r != nil {
		return r
	}
	if r := check("team", a.TeamLimits, team, a.Hold); r != nil {
		return r
	}
	for _, account := range []*Account{key, team} {
		if account != nil {
			account.Held += a.Hold
			account.Open++
		}
	}
	return nil
}

// check holds one account against its limits. What the request needs beyond
// what is spent decides whether waiting can help.
func check(who string, l Limits, a *Account, hold money.NanoUSD) *Refusal {
	if a == nil {
		return nil
	}
	if l.MaxBudgetNanoUSD != nil {
		limit := *l.MaxBudgetNanoUSD
		if a.Spent >= limit {
			return &Refusal{Final: true, Message: fmt.Sprintf(
				"The %s's budget is used up: $%s of $%s spent.", who, a.Spent, limit)}
		}
		if hold > limit-a.Spent {
			return &Refusal{Final: true, Message: fmt.Sprintf(
				"The %s's budget is too small for this request: it could cost $%s, and $%s of $%s are left. Lower max_tokens or shorten the prompt.",
				who, hold, limit-a.Spent, limit)}
		}
		if hold > limit-a.Spent-a.Held {
			return &Refusal{Message: fmt.Sprintf(
				"The %s's budget is held by its requests in flight: $%s of $%s spent, $%s held, and this request could cost $%s. Try again when they have ended.",
				who, a.Spent, limit, a.Held, hold)}
		}
	}
	if l.MaxParallelRequests != nil && a.Open >= *l.MaxParallelRequests {
		return &Refusal{Message: fmt.Sprintf(
			"The %s has %d requests in flight, and %d are allowed at once. Try again when one has ended.", who, a.Open, *l.MaxParallelRequests)}
	}
	return nil
}
