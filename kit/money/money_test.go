package money

import (
	"errors"
	"math"
	"math/big"
	"testing"
)

func TestParseUSD(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want NanoUSD
		err  error
	}{
		{"a whole number", "12", 12 * USD, nil},
		{"a fraction", "0.05", 50_000_000, nil},
		{"a negative amount", "-1.5", -1_500_000_000, nil},
		{"an exponent, as JSON writers spell small numbers", "1e-06", 1000, nil},
		{"an exponent with a fraction", "1.25e-7", 125, nil},
		{"zeros after the ninth decimal", "0.1234567890", 123_456_789, nil},
		{"zero with a large exponent", "0e300", 0, nil},
		{"ten decimals", "0.1234567891", 0, ErrSyntax},
		{"more than fits", "9223372037", 0, ErrOverflow},
		{"a word", "ten", 0, ErrSyntax},
		{"nothing", "", 0, ErrSyntax},
		{"a lone sign", "-", 0, ErrSyntax},
		{"not a number", "NaN", 0, ErrSyntax},
		{"a hostile exponent", "1e999999999999", 0, ErrSyntax},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseUSD(tt.in)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("ParseUSD(%q) = %d, %v, want %d, %v", tt.in, got, err, tt.want, tt.err)
			}
		})
	}
}

func TestMulDivRoundsHalfAwayFromZeroOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		n        NanoUSD
		mul, div int64
		want     NanoUSD
	}{
		{3, 1, 2, 2},
		{-3, 1, 2, -2},
		{1, 1, 3, 0},
		{2, 1, 3, 1},
		{5, 3, 1, 15},
		{100 * USD, 1_000_000_000, 1_000_000, 100_000 * USD},
	}
	for _, tt := range tests {
		got, err := MulDiv(tt.n, tt.mul, tt.div)
		if err != nil || got != tt.want {
			t.Errorf("MulDiv(%d, %d, %d) = %d, %v, want %d", tt.n, tt.mul, tt.div, got, err, tt.want)
		}
	}
	if _, err := MulDiv(math.MaxInt64, math.MaxInt64, 1); !errors.Is(err, ErrOverflow) {
		t.Errorf("MulDiv of the largest values: %v, want ErrOverflow", err)
	}
}

func FuzzMulDiv(f *testing.F) {
	f.Add(int64(7), int64(3), int64(2))
	f.Add(int64(math.MinInt64), int64(1), int64(1))
	f.Add(int64(-1), int64(math.MaxInt64), int64(3))
	f.Fuzz(func(t *testing.T, n, mul, div int64) {
		if mul < 0 || div <= 0 {
			return
		}
		got, err := MulDiv(NanoUSD(n), mul, div)
		num := new(big.Int).Mul(new(big.Int).Abs(big.NewInt(n)), big.NewInt(mul))
		num.Add(num.Mul(num, big.NewInt(2)), big.NewInt(div))
		want := num.Div(num, new(big.Int).Mul(big.NewInt(div), big.NewInt(2)))
		if n < 0 {
			want.Neg(want)
		}
		switch {
		case err == nil && want.Cmp(big.NewInt(int64(got))) != 0:
			t.Errorf("MulDiv(%d, %d, %d) = %d, want %s", n, mul, div, got, want)
		case err != nil && want.IsInt64() && n != math.MinInt64: // the smallest int64 has no magnitude
			t.Errorf("MulDiv(%d, %d, %d): %v, want %s", n, mul, div, err, want)
		}
	})
}

func FuzzDecimalRoundTrip(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(math.MinInt64))
	f.Add(int64(31_500))
	f.Fuzz(func(t *testing.T, n int64) {
		text := NanoUSD(n).String()
		got, err := ParseUSD(text)
		if n == math.MinInt64 {
			return // its magnitude has no positive int64; it is out of every range we use
		}
		if err != nil || int64(got) != n {
			t.Errorf("ParseUSD(%q) = %d, %v, want %d", text, got, err, n)
		}
	})
}

func TestCredits(t *testing.T) {
	t.Parallel()
	if got := NanoUSD(315_000_005).Credits(); got != "31.5000005" {
		t.Errorf("Credits() = %s, want 31.5000005", got)
	}
}

func FuzzSum(f *testing.F) {
	f.Add(int64(1_000_000), int64(100_000_000_000), int64(5), int64(7), int64(11), int64(10_000_000))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(3), int64(1))
	f.Fuzz(func(t *testing.T, a, b, c, d, scale, div int64) {
		if a < 0 || b < 0 || c < 0 || d < 0 || scale < 0 || div <= 0 {
			return
		}
		var s Sum
		s.Add(a, b)
		s.Add(c, d)
		s.Scale(scale)
		got, err := s.Div(div)
		want := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
		want.Add(want, new(big.Int).Mul(big.NewInt(c), big.NewInt(d)))
		want.Mul(want, big.NewInt(scale))
		fits := want.BitLen() <= 128
		want.Add(want.Mul(want, big.NewInt(2)), big.NewInt(div))
		want.Div(want, new(big.Int).Mul(big.NewInt(div), big.NewInt(2)))
		switch {
		case err == nil && want.Cmp(big.NewInt(int64(got))) != 0:
			t.Errorf("(%d·%d + %d·%d)·%d / %d = %d, want %s", a, b, c, d, scale, div, got, want)
		case err != nil && fits && want.IsInt64():
			t.Errorf("(%d·%d + %d·%d)·%d / %d: %v, want %s", a, b, c, d, scale, div, err, want)
		}
	})
}
