// Package listprice prices usage by hand. Prices are written out here once more, so
// that a wrong price file does not agree with itself.
package listprice

import (
	"math/big"
	"strings"
)

// perMillion is Anthropic's price in USD per million tokens: input, output, 5-minute
// write, 1-hour write, read.
var perMillion = map[string][5]string{
	"claude-haiku-4-5":  {"1", "5", "1.25", "2", "0.1"},
	"claude-sonnet-4-5": {"3", "15", "3.75", "6", "0.3"},
	"claude-opus-5-5":   {"4", "20", "5", "8", "0.2"},
}

// Usage is what an answer used, in tokens.
type Usage struct{ Input, Output, Write5m, Write1h, Read int64 }

// Cost is the price of usage in nano-dollars, rounded half up; not ok: the model has
// no price here.
func Cost(model string, u Usage) (nanoUSD *big.Int, ok bool) {
	for name, price := range perMillion {
		if !strings.HasPrefix(model, name) {
			continue
		}
		sum := big.NewRat(1, 2)
		for i, tokens := range []int64{u.Input, u.Output, u.Write5m, u.Write1h, u.Read} {
			rate, _ := new(big.Rat).SetString(price[i])
			sum.Add(sum, rate.Mul(rate, new(big.Rat).SetInt64(tokens*1000))) // USD per million → nano-dollars
		}
		return new(big.Int).Div(sum.Num(), sum.Denom()), true
	}
	return nil, false
}
