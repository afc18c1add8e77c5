package autumn

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Amount is an exact number of credits in units of 1e-10, the precision to which
// Autumn rounds. It reaches 922 million credits.
type Amount int64

const (
	amountDecimals        = 10
	amountUnit     Amount = 1e10
)

// Credits returns n whole credits.
func Credits(n int64) Amount { return Amount(n) * amountUnit }

// maxNumber bounds the text of a number, so that exponents stay harmless.
const maxNumber = 40

// ParseAmount reads a JSON number, exponent forms included, and rounds it to ten
// decimals, half away from zero.
func ParseAmount(text string) (Amount, error) {
	var number json.Number
	if err := json.Unmarshal([]byte(text), &number); err != nil || strings.HasPrefix(text, `"`) || number == "" {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	if _, exponent, found := strings.Cut(strings.ToLower(text), "e"); found {
		if e, err := strconv.Atoi(exponent); err != nil || e < -maxNumber || e > maxNumber {
			return 0, fmt.Errorf("%q is out of range", text)
		}
	}
	if len(text) > maxNumber {
		return 0, fmt.Errorf("%q is too long", text)
	}
	exact, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	exact.Mul(exact, new(big.Rat).SetInt64(int64(amountUnit)))
	rounded, ok := new(big.Int).SetString(exact.FloatString(0), 10) // rounds half away from zero
	if !ok || !rounded.IsInt64() {
		return 0, fmt.Errorf("%q is out of range", text)
	}
	return Amount(rounded.Int64()), nil
}

// stored is an amount as Autumn's cache holds it: a double of 14 digits. What
// does not fit is lost.
func stored(a Amount) Amount {
	drop := Amount(1)
	for n := a; n > 1e14 || n < -1e14; n /= 10 {
		drop *= 10
	}
	return a / drop * drop
}

// String writes the amount as a decimal without trailing zeros.
func (a Amount) String() string {
	digits := strconv.FormatInt(int64(a), 10)
	sign := ""
	if a < 0 {
		sign, digits = "-", digits[1:]
	}
	if missing := amountDecimals + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	whole, fraction := digits[:len(digits)-amountDecimals], digits[len(digits)-amountDecimals:]
	if fraction = strings.TrimRight(fraction, "0"); fraction != "" {
		return sign + whole + "." + fraction
	}
	return sign + whole
}

// MarshalJSON writes the amount as an exact JSON number.
func (a Amount) MarshalJSON() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalJSON reads a JSON number.
func (a *Amount) UnmarshalJSON(p []byte) error {
	var err error
	*a, err = ParseAmount(string(p))
	return err
}
