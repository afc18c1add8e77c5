package autumn

import (
	"encoding/json"
	"math/big"
)

// signed is what is really left: Autumn floors at 0 what it shows, on each row of
// the breakdown by itself. Where something is shown as left, that is the truth,
// since a balance that was set by hand differs from granted − usage; where
// nothing is, usage beyond the grant tells how much less. Rollovers stand beside
// the rows.
func (f feature) signed() (string, error) {
	rows := f.Breakdown
	if len(rows) == 0 {
		rows = []row{{IncludedGrant: f.Granted, Remaining: f.Remaining, Usage: f.Usage}}
	}
	sum := new(big.Rat)
	for _, r := range rows {
		left, err := r.signed()
		if err != nil {
			return "", err
		}
		sum.Add(sum, left)
	}
	for _, r := range f.Rollovers {
		left, err := number(r.Balance)
		if err != nil {
			return "", err
		}
		sum.Add(sum, left)
	}
	return sum.FloatString(amountDecimals), nil
}

func (r row) signed() (*big.Rat, error) {
	left, err := number(r.Remaining)
	if err != nil || left.Sign() > 0 {
		return left, err
	}
	for _, n := range []json.Number{r.IncludedGrant, r.PrepaidGrant} {
		granted, err := number(n)
		if err != nil {
			return nil, err
		}
		left.Add(left, granted)
	}
	used, err := number(r.Usage)
	if err != nil {
		return nil, err
	}
	if left.Sub(left, used).Sign() > 0 {
		return new(big.Rat), nil // what is shown as nothing left is not more
	}
	return left, nil
}

// number reads a JSON number; one that is not there is 0.
func number(n json.Number) (*big.Rat, error) {
	if n == "" {
		return new(big.Rat), nil
	}
	return rational(n)
}
