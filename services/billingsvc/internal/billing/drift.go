package billing

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Class says what explains a difference between the sink and the books.
type Class string

// The classes.
const (
	ClassNone          Class = "none"
	ClassRounding      Class = "rounding"       // less than the sink's arithmetic can hold
	ClassBaseline      Class = "baseline"       // the first report: books begin here
	ClassInFlight      Class = "in_flight"      // a charge under way explains it
	ClassDoubtApplied  Class = "doubt_applied"  // ambiguous charges were applied
	ClassGrant         Class = "grant"          // usage is as expected, the rest is credits
	ClassGrantRemoved  Class = "grant_removed"  // the same, downwards
	ClassReset         Class = "reset"          // a new cycle
	ClassMissingCharge Class = "missing_charge" // the sink has not got what it confirmed
	ClassDoubleCharge  Class = "double_charge"  // the sink has applied a charge twice
	ClassUnexplained   Class = "unexplained"    // usage that is none of ours
	ClassNoBalance     Class = "no_balance"     // the sink knows no balance of the team
	ClassCustomerReset Class = "customer_reset" // usage went back in mid-cycle
)

// Sighting is what the sink says of a team.
type Sighting struct {
	NoBalance  bool
	Unlimited  bool
	Balance    money.NanoUSD // signed
	Usage      money.NanoUSD // of the current cycle
	ResetAt    *time.Time    // end of the cycle; nil: none, or not known
	ObservedAt time.Time
	Found      []string // ids of doubtful charges that the sink's list of events has
}

// Standing is what the books say of the team at the same moment.
type Standing struct {
	Balance Balance
	// Usage at the sink when the books of it began, and what was posted then.
	BaseUsage, BasePosted money.NanoUSD
	ResetAt               *time.Time // as the sink said last
	// Doubt are charges that may be in the sighting and are not in posted, and
	// Late those that are in posted and may not be in the sighting, because they
	// were settled since the lease began. Base are charges that were in doubt
	// when the books began and are posted now: they may have been in it.
	Doubt, Late, Base []Charge
	// Posted are the newest charges that the sink confirmed, newest first.
	Posted []Charge
}

func (b Standing) expectedBalance() money.NanoUSD {
	return b.Balance.GrantedNanoUSD - b.Balance.PostedNanoUSD
}

func (b Standing) expectedUsage() money.NanoUSD {
	return b.BaseUsage + b.Balance.PostedNanoUSD - b.BasePosted
}

// Finding is what a comparison comes to.
type Finding struct {
	Class        Class
	Drift        money.NanoUSD // sink − books, of the balance
	UsageDrift   money.NanoUSD
	Grant        money.NanoUSD // to be added to what was granted; proved
	Rebase       bool          // the books of the sink's usage begin anew with this sighting
	BaseHeld     []Charge      // charges that the beginning of the books held already
	Confirm      []Charge      // charges that are proved to be applied, and not under way
	Explains     []Charge      // charges that explain the drift
	Fixed        bool          // nothing is left unexplained
	Unresolved   money.NanoUSD // what is
	Detail       string
	ProofConfirm string // of Confirm
}

// Proofs of charges that a reconciliation settles.
const (
	ProofUsageDelta = "usage_delta"
	ProofEventsList = "events_list"
)

// tolerance is the difference that the sink's arithmetic can make: doubles,
// written with 14 digits after every deduction.
func tolerance(b, usage money.NanoUSD) money.NanoUSD {
	return 10*money.MicroCredit + max(abs(b), abs(usage))/100_000_000_000
}

func abs(n money.NanoUSD) money.NanoUSD { return max(n, -n) }

// Compare explains a sighting by the books. It decides from amounts alone, so a
// charge is only proved to be applied when no other explanation fits.
func (b Standing) Compare(s Sighting) Finding {
	if s.NoBalance {
		return b.withoutBalance()
	}
	f := Finding{Drift: s.Balance - b.expectedBalance(), UsageDrift: s.Usage - b.expectedUsage()}
	tol := tolerance(s.Balance, s.Usage)
	switch {
	case b.Balance.Basis != PlanBasis:
		return f.begin(ClassBaseline, s, b, "the sink's balance is taken as the beginning")
	case s.Unlimited:
		f.Class, f.Fixed, f.Detail = ClassNone, true, "the feature has no limit"
		return f
	case b.reset(s):
		return f.begin(ClassReset, s, b, "a new cycle began at the sink")
	}
	f.Grant = f.Drift + f.UsageDrift // the change of granted = balance + usage
	if abs(f.Grant) <= tol {
		f.Grant = 0
	}
	b.explainUsage(&f, s, tol)
	if f.Fixed {
		f.classifyGrant()
	}
	return f
}

// withoutBalance is no drift of a team that never had one. One that had has
// lost its plan or its customer.
func (b Standing) withoutBalance() Finding {
	f := Finding{Class: ClassNoBalance, Fixed: true, Detail: "the sink knows no balance of the team"}
	if b.Balance.Basis == PlanBasis {
		f.Fixed, f.Drift, f.Unresolved = false, -b.expectedBalance(), -b.expectedBalance()
		f.Detail = "the sink knew a balance of the team before and knows none now: a plan or customer is gone"
	}
	return f
}

// begin takes the sighting as the beginning of the books.
func (f Finding) begin(c Class, s Sighting, b Standing, detail string) Finding {
	f.Class, f.Rebase, f.Fixed, f.Detail = c, true, true, detail
	f.Grant = s.Balance + b.basePosted() - b.Balance.GrantedNanoUSD
	return f
}

// basePosted is what was posted when the books begin with a sighting. What was
// settled since the sink was asked is taken as not in it, and may prove to be.
func (b Standing) basePosted() money.NanoUSD {
	return b.Balance.PostedNanoUSD - applied(b.Late)
}

func applied(charges []Charge) (sum money.NanoUSD) {
	for _, c := range charges {
		sum += c.applied()
	}
	return sum
}

// reset says whether a new cycle began: it ends later than the one that we
// knew, which is over.
func (b Standing) reset(s Sighting) bool {
	return b.ResetAt != nil && s.ResetAt != nil && s.ResetAt.After(*b.ResetAt) && !s.ObservedAt.Before(*b.ResetAt)
}

// explainUsage finds the charges that make the difference of usage.
func (b Standing) explainUsage(f *Finding, s Sighting, tol money.NanoUSD) {
	f.Fixed = true
	found, unique := match(f.UsageDrift, signed(b.Doubt, +1), signed(b.Late, -1), signed(b.Base, -1), tol)
	switch {
	case found != nil:
		b.explainedByDoubt(f, found, unique)
	case b.explainedByPosted(f, -1, tol):
		f.Class, f.Detail = ClassMissingCharge, "the sink does not have charges that it confirmed: "
	case b.explainedByPosted(f, +1, tol):
		f.Class, f.Detail = ClassDoubleCharge, "the sink applied charges twice: "
	case s.Usage < b.BaseUsage-tol:
		f.Class, f.Detail = ClassCustomerReset, "usage at the sink went back in mid-cycle: the customer was made anew, or it lost data"
		f.Grant = 0 // neither side is what it was
	default:
		f.Class, f.Detail = ClassUnexplained, "usage at the sink differs by what no charge explains"
	}
	if f.Class == ClassMissingCharge || f.Class == ClassDoubleCharge {
		f.Detail += list(f.Explains)
	}
	if f.Class != "" && f.Class != ClassInFlight && f.Class != ClassDoubtApplied {
		f.Fixed, f.Unresolved = false, -f.UsageDrift
	}
}

// explainedByDoubt sorts out what charges in doubt explain. Those under way are
// left to their sender; ambiguous ones are proved when nothing else fits.
func (b Standing) explainedByDoubt(f *Finding, found []signedCharge, unique bool) {
	for _, c := range found {
		f.Explains = append(f.Explains, c.Charge)
		switch {
		case c.sign < 0:
		case c.LeaseUntil == nil && c.Unsure && unique:
			f.Confirm = append(f.Confirm, c.Charge)
		}
	}
	switch {
	case len(found) == 0:
	case len(f.Confirm) > 0:
		f.Class, f.ProofConfirm = ClassDoubtApplied, ProofUsageDelta
		f.Detail = "usage at the sink shows that ambiguous charges were applied: " + list(f.Confirm)
	default:
		f.Class, f.Detail = ClassInFlight, "charges under way explain the difference: "+list(f.Explains)
	}
	for _, c := range found {
		if c.sign < 0 && slices.ContainsFunc(b.Base, func(d Charge) bool { return d.ChargeID == c.ChargeID }) {
			f.BaseHeld = append(f.BaseHeld, c.Charge)
		}
	}
	f.Grant += applied(f.BaseHeld)
}

// explainedByPosted looks for posted charges whose sum is the difference: one,
// two, or the newest few.
func (b Standing) explainedByPosted(f *Finding, sign money.NanoUSD, tol money.NanoUSD) bool {
	want := f.UsageDrift * sign
	if want <= tol {
		return false
	}
	var sum money.NanoUSD
	for i, c := range b.Posted {
		if abs(c.applied()-want) <= tol {
			f.Explains = []Charge{c}
			return true
		}
		if sum += c.applied(); abs(sum-want) <= tol {
			f.Explains = b.Posted[:i+1]
			return true
		}
	}
	for i, c := range b.Posted {
		for _, d := range b.Posted[i+1:] {
			if abs(c.applied()+d.applied()-want) <= tol {
				f.Explains = []Charge{c, d}
				return true
			}
		}
	}
	return false
}

// applied is what the sink said that it took for a charge.
func (c Charge) applied() money.NanoUSD { return c.AmountNanoUSD - c.ShortfallNanoUSD }

// classifyGrant names what is left when usage is explained.
func (f *Finding) classifyGrant() {
	detail := ""
	switch {
	case len(f.BaseHeld) > 0 && f.Grant == applied(f.BaseHeld):
		f.Class, detail = ClassBaseline, "the beginning of the books held them already"
	case f.Grant > 0:
		f.Class, detail = ClassGrant, "credits were granted at the sink: "+f.Grant.Credits()
	case f.Grant < 0:
		f.Class, detail = ClassGrantRemoved, "credits were taken away at the sink: "+(-f.Grant).Credits()
	case f.Class == "" && f.Drift == 0 && f.UsageDrift == 0:
		f.Class = ClassNone
	case f.Class == "":
		f.Class, detail = ClassRounding, "less than the sink's arithmetic can hold"
	}
	f.Detail = strings.TrimPrefix(f.Detail+"; "+detail, "; ")
	f.Detail = strings.TrimSuffix(f.Detail, "; ")
}

// list names charges, a few at the most.
func list(charges []Charge) string {
	var names []string
	for i, c := range charges {
		if i == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(charges)-i))
			break
		}
		names = append(names, fmt.Sprintf("%s (seq %d, %s credits)", c.ChargeID, c.Seq, c.AmountNanoUSD.Credits()))
	}
	return strings.Join(names, ", ")
}
