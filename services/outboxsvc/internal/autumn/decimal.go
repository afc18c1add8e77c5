package autumn

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// maxDigits bounds numbers and their exponents, so that no answer can make us
// count for ever.
const maxDigits = 60

// amountDecimals are what Autumn rounds to.
const amountDecimals = 10

// rational reads a JSON number exactly.
func rational(n json.Number) (*big.Rat, error) {
	text := strings.ToLower(n.String())
	_, exponent, found := strings.Cut(text, "e")
	if found {
		if e, err := strconv.Atoi(exponent); err != nil || e > maxDigits || e < -maxDigits {
			return nil, fmt.Errorf("exponent out of range")
		}
	}
	if text == "" || len(text) > maxDigits || strings.Trim(text, "0123456789+-.e") != "" {
		return nil, fmt.Errorf("not a decimal number")
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("not a decimal number")
	}
	return r, nil
}

// microCredits adds deductions exactly and rounds the sum once, to the nearest
// micro-credit: Autumn's doubles carry noise far below that.
func microCredits(list []deduction) (int64, error) {
	sum := new(big.Rat)
	for _, d := range list {
		r, err := rational(d.Value)
		if err != nil {
			return 0, err
		}
		sum.Add(sum, r)
	}
	sum.Mul(sum, big.NewRat(1_000_000, 1))
	whole, ok := new(big.Int).SetString(sum.FloatString(0), 10) // half away from zero
	if !ok || !whole.IsInt64() || whole.CmpAbs(big.NewInt(1<<59)) > 0 {
		return 0, fmt.Errorf("sum out of range")
	}
	return whole.Int64(), nil
}

// plain writes a JSON number without an exponent where that is exact; empty for
// no number.
func plain(n json.Number) string {
	text := n.String()
	if len(text) > 40 {
		return ""
	}
	if !strings.ContainsAny(text, "eE") {
		return text
	}
	units, err := money.ParseDecimal(text, amountDecimals)
	if err != nil {
		return ""
	}
	return money.FormatDecimal(units, amountDecimals)
}
