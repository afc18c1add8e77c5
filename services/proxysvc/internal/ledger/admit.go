package ledger

import (
	"fmt"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Refusal says why a request is not admitted. One that is not Final goes away by
// itself: when requests in flight end, or when the minute does.
type Refusal struct {
	Final   bool
	Message string
	// RetryAfter is when it is worth trying again; 0: when others have ended.
	RetryAfter time.Duration
}

// Error makes a Refusal an error.
func (r *Refusal) Error() string { return r.Message }

// Admit decides one admission against the accounts of its claims at an instant.
// On success it takes what the request holds from all of them; a refusal changes
// none, so a key, its team and their models are decided together or not at all.
// It reads no clock and no other state.
func Admit(a *Admission, accounts map[AccountID]*Account, now time.Time) *Refusal {
	return admit(a, 0, accounts, now)
}

// admit is Admit for a request that slices of some accounts bear, which are not asked.
func admit(a *Admission, sliced uint8, accounts map[AccountID]*Account, now time.Time) *Refusal {
	for _, c := range a.Claims {
		account := accounts[c.Account]
		if account == nil || sliced&c.Account.bit() != 0 {
			continue // without a shared row nothing was ever limited
		}
		account.turn(now)
		if r := c.check(a, account, now); r != nil {
			return r
		}
	}
	apply(a.direct(sliced), a.delta(), accounts, now)
	return nil
}

// check holds an account against the limits of a claim.
func (c Claim) check(a *Admission, account *Account, now time.Time) *Refusal {
	for _, b := range c.Limits.Budgets {
		if r := c.checkBudget(b, a.Hold, account, now); r != nil {
			return r
		}
	}
	l := c.Limits
	minuteEnd := account.Minute.Add(time.Minute)
	switch {
	case l.MaxParallelRequests != nil && account.Open >= *l.MaxParallelRequests:
		return &Refusal{Message: fmt.Sprintf(
			"The %s has %d requests in flight, and %d are allowed at once. Try again when one has ended.", c.Who, account.Open, *l.MaxParallelRequests)}
	case l.RPM != nil && account.MinuteRequests >= *l.RPM:
		return &Refusal{RetryAfter: minuteEnd.Sub(now), Message: fmt.Sprintf(
			"The %s is limited to %d requests a minute, and %d were made; it starts again at %s.", c.Who, *l.RPM, account.MinuteRequests, clock(minuteEnd))}
	case l.TPM != nil && account.MinuteTokens >= *l.TPM:
		return &Refusal{RetryAfter: minuteEnd.Sub(now), Message: fmt.Sprintf(
			"The %s is limited to %d tokens a minute, and %d were used; it starts again at %s.", c.Who, *l.TPM, account.MinuteTokens, clock(minuteEnd))}
	case l.TPM != nil && min(a.Tokens, *l.TPM) > *l.TPM-account.MinuteTokens-account.HeldTokens:
		// A request that could use more than the limit alone runs alone.
		return &Refusal{RetryAfter: minuteEnd.Sub(now), Message: fmt.Sprintf(
			"The %s is limited to %d tokens a minute: %d were used, %d are held by requests in flight, and this one could use %d. Try again when they have ended, or at %s.",
			c.Who, *l.TPM, account.MinuteTokens, account.HeldTokens, a.Tokens, clock(minuteEnd))}
	}
	return nil
}

// checkBudget holds an account against one budget. What the request needs beyond
// what is spent decides whether waiting for others can help.
func (c Claim) checkBudget(b Budget, hold money.NanoUSD, account *Account, now time.Time) *Refusal {
	spent, resets := account.spent(b)
	limit := b.at(now)
	of := func() string {
		if b.Window == "" {
			return fmt.Sprintf("$%s of $%s", spent, limit)
		}
		return fmt.Sprintf("$%s of $%s in this window of %s, which ends at %s", spent, limit, b.Window, resets.UTC().Format(time.RFC3339))
	}
	switch {
	case spent >= limit:
		return &Refusal{Final: true, Message: fmt.Sprintf("The %s's budget is used up: %s spent.", c.Who, of())}
	case c.Limits.Soft:
		return nil
	case hold > limit-spent:
		return &Refusal{Final: true, Message: fmt.Sprintf(
			"The %s's budget is too small for this request: it could cost $%s, and $%s are left, %s spent. Lower max_tokens or shorten the prompt.",
			c.Who, hold, limit-spent, of())}
	case hold > limit-spent-account.Held:
		return &Refusal{Message: fmt.Sprintf(
			"The %s's budget is held by its requests in flight, or for ones to come: %s spent, $%s held, and this request could cost $%s. Try again when they have ended.",
			c.Who, of(), account.Held, hold)}
	}
	return nil
}

func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) + " UTC" }

// standing tells where the accounts of an admission stand.
func standing(a *Admission, accounts func(AccountID) *Account, now time.Time) Standing {
	var s Standing
	for _, c := range a.Claims {
		account := accounts(c.Account)
		if account == nil {
			continue
		}
		if w := c.warning(account); w != nil {
			s.Warnings = append(s.Warnings, *w)
		}
		if c.Account.Kind == KindKey {
			spent := account.Spent
			s.KeySpent = &spent
		}
		for _, b := range c.Limits.Budgets {
			spent, resets := account.spent(b)
			if left := max(0, b.at(now)-spent); s.Left == nil || left < *s.Left {
				s.Left, s.ResetsAt = &left, resets
			}
		}
	}
	return s
}
