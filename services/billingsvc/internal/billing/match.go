package billing

import "github.com/proliferate-ai/llm-proxy/kit/money"

// signedCharge is a charge that makes the sink's usage more (+1) or less (-1)
// than the books say.
type signedCharge struct {
	Charge
	sign money.NanoUSD
}

func signed(charges []Charge, sign money.NanoUSD) []signedCharge {
	out := make([]signedCharge, len(charges))
	for i, c := range charges {
		out[i] = signedCharge{c, sign}
	}
	return out
}

// mostDoubts bounds the search among charges in doubt; there is one normally.
const mostDoubts = 12

// match finds charges whose signed amounts sum to want, the smallest set first,
// and says whether that set is the only one of its size. An empty set is not
// nil.
func match(want money.NanoUSD, doubt, late, base []signedCharge, tol money.NanoUSD) (found []signedCharge, unique bool) {
	all := append(append(doubt, late...), base...)
	if len(all) > mostDoubts {
		all = all[:mostDoubts]
	}
	for set := range 1 << len(all) {
		var sum money.NanoUSD
		chosen := []signedCharge{}
		for i, c := range all {
			if set>>i&1 == 1 {
				sum += c.sign * max(c.applied(), 0)
				chosen = append(chosen, c)
			}
		}
		switch {
		case abs(sum-want) > tol:
		case found == nil || len(chosen) < len(found):
			found, unique = chosen, true
		case len(chosen) == len(found):
			unique = false
		}
	}
	return found, unique
}
