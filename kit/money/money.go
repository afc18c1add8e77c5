// Package money holds amounts of US dollars as whole nano-dollars and prices as
// whole nano-dollars per million units. No floating point is used anywhere in
// it: decimals come in and go out as text.
package money

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// NanoUSD is an amount in nano-dollars (1e-9 USD). Its range is about ±9.2
// billion dollars.
type NanoUSD int64

// Scale of the amounts.
const (
	USD         NanoUSD = 1_000_000_000
	Credit      NanoUSD = USD / 100          // 1 credit is $0.01
	MicroCredit NanoUSD = Credit / 1_000_000 // the smallest amount that is charged
)

// ErrOverflow means that a result does not fit an amount.
var ErrOverflow = errors.New("amount out of range")

// ErrSyntax means that a text is no decimal number of the wanted precision.
var ErrSyntax = errors.New("not a decimal number")

// MulDiv returns n × mul ÷ div, computed in 128 bits and rounded once, half
// away from zero. mul must not be negative and div must be positive. The
// smallest NanoUSD is out of its range.
func MulDiv(n NanoUSD, mul, div int64) (NanoUSD, error) {
	if mul < 0 || div <= 0 {
		return 0, fmt.Errorf("multiply by %d and divide by %d: %w", mul, div, ErrOverflow)
	}
	magnitude, negative := n, n < 0
	if negative {
		magnitude = -magnitude
	}
	var sum Sum
	sum.Add(int64(magnitude), mul) // the smallest int64 stays negative and so overflows
	q, err := sum.Div(div)
	if negative {
		q = -q
	}
	return q, err
}

// ParseUSD reads an amount of dollars such as "12", "-0.05" or "1e-06" (the
// form in which JSON writers spell small numbers). More than 9 decimals are an
// error, since they cannot be held exactly.
func ParseUSD(s string) (NanoUSD, error) {
	n, err := ParseDecimal(s, 9)
	return NanoUSD(n), err
}

// ParseDecimal reads a decimal number as an integer of 10^-decimals units. It
// fails with ErrSyntax when the text is no number or has more decimals, and
// with ErrOverflow when it does not fit.
func ParseDecimal(s string, decimals int) (int64, error) {
	mantissa, exp, err := splitExponent(s)
	if err != nil {
		return 0, err
	}
	negative := strings.HasPrefix(mantissa, "-")
	mantissa = strings.TrimPrefix(strings.TrimPrefix(mantissa, "-"), "+")
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	shift := decimals + exp - len(frac)
	digits = strings.TrimLeft(digits, "0")
	for ; shift < 0; shift++ {
		if digits == "" {
			break
		}
		if !strings.HasSuffix(digits, "0") {
			return 0, fmt.Errorf("%q has more than %d decimals: %w", s, decimals, ErrSyntax)
		}
		digits = digits[:len(digits)-1]
	}
	if digits == "" {
		return 0, nil
	}
	if len(digits)+max(shift, 0) > 19 {
		return 0, fmt.Errorf("%q: %w", s, ErrOverflow)
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", max(shift, 0)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, ErrOverflow)
	}
	if negative {
		return -n, nil
	}
	return n, nil
}

func splitExponent(s string) (mantissa string, exp int, err error) {
	i := strings.IndexAny(s, "eE")
	if i < 0 {
		return s, 0, nil
	}
	exp, err = strconv.Atoi(s[i+1:])
	if err != nil || exp < -400 || exp > 400 {
		return "", 0, fmt.Errorf("%q: %w", s, ErrSyntax)
	}
	return s[:i], exp, nil
}

// FormatDecimal writes an integer of 10^-decimals units as a plain decimal
// without trailing zeros: FormatDecimal(31500, 6) is "0.0315".
func FormatDecimal(n int64, decimals int) string {
	magnitude, sign := uint64(n), ""
	if n < 0 {
		magnitude, sign = -magnitude, "-"
	}
	digits := strconv.FormatUint(magnitude, 10)
	if decimals == 0 {
		return sign + digits
	}
	if pad := decimals + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	whole, frac := digits[:len(digits)-decimals], strings.TrimRight(digits[len(digits)-decimals:], "0")
	if frac == "" {
		return sign + whole
	}
	return sign + whole + "." + frac
}

// String writes the amount in dollars, exactly: "0.000012345".
func (n NanoUSD) String() string { return FormatDecimal(int64(n), 9) }

// Credits writes the amount in credits, exactly: 7 decimals at the most.
func (n NanoUSD) Credits() string { return FormatDecimal(int64(n), 7) }
