package money

import "math/bits"

// Sum adds products exactly in 128 bits, to be divided and rounded once at the
// end. The zero Sum is empty. Factors must not be negative.
type Sum struct {
	hi, lo   uint64
	overflow bool
}

// Add adds a × b.
func (s *Sum) Add(a, b int64) {
	if a < 0 || b < 0 {
		s.overflow = true
		return
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, carry = bits.Add64(s.hi, hi, carry)
	s.overflow = s.overflow || carry != 0
}

// Scale multiplies the sum by n.
func (s *Sum) Scale(n int64) {
	if n < 0 {
		s.overflow = true
		return
	}
	over, hi := bits.Mul64(s.hi, uint64(n))
	mid, lo := bits.Mul64(s.lo, uint64(n))
	hi, carry := bits.Add64(hi, mid, 0)
	s.overflow = s.overflow || over != 0 || carry != 0
	s.hi, s.lo = hi, lo
}

// Div returns the sum ÷ div, rounded once, half up.
func (s Sum) Div(div int64) (NanoUSD, error) {
	if s.overflow || div <= 0 {
		return 0, ErrOverflow
	}
	lo, carry := bits.Add64(s.lo, uint64(div)/2, 0)
	hi := s.hi + carry
	if hi >= uint64(div) {
		return 0, ErrOverflow
	}
	q, _ := bits.Div64(hi, lo, uint64(div))
	if q > 1<<63-1 {
		return 0, ErrOverflow
	}
	return NanoUSD(q), nil
}
