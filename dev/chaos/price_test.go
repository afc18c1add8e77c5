package chaos

import (
	"math/big"
	"strings"
	"testing"
)

// listPrice is Anthropic's price in USD per million tokens: input, output,
// 5-minute write, 1-hour write, read. It is written out here once more, so that
// a wrong price file does not agree with itself.
var listPrice = map[string][5]string{
	"claude-haiku-4-5":  {"1", "5", "1.25", "2", "0.1"},
	"claude-sonnet-4-5": {"3", "15", "3.75", "6", "0.3"},
	"claude-opus-5-5":   {"4", "20", "5", "8", "0.2"},
}

// byHand prices usage in nano-dollars, rounded half up.
func byHand(t *testing.T, model string, u usage) *big.Int {
	t.Helper()
	for name, price := range listPrice {
		if !strings.HasPrefix(model, name) {
			continue
		}
		sum := big.NewRat(1, 2)
		for i, tokens := range []int64{u.input, u.output, u.write5m, u.write1h, u.read} {
			rate, _ := new(big.Rat).SetString(price[i])
			sum.Add(sum, rate.Mul(rate, new(big.Rat).SetInt64(tokens*1000))) // USD per million → nano-dollars
		}
		return new(big.Int).Div(sum.Num(), sum.Denom())
	}
	t.Fatalf("no price by hand for %s", model)
	return nil
}
