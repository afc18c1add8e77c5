package litellm

import (
	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// page is which part of a list is wanted, counted from 1.
type page struct{ number, size int }

// pageOf reads a page; zeros are the first one and the default size.
func pageOf(number, size int32, usual, largest int) (page, error) {
	p := page{number: int(number), size: int(size)}
	if p.number == 0 {
		p.number = 1
	}
	if p.size == 0 {
		p.size = usual
	}
	if p.number < 1 || p.number > deepest || p.size < 1 || p.size > largest {
		return p, fault.Errorf(fault.Invalid, "a page is numbered from 1 and has 1 to %d entries", largest)
	}
	return p, nil
}

// deepest bounds page numbers, so that offsets fit.
const deepest = 10_000_000

func (p page) skip() int { return (p.number - 1) * p.size }

// pages is how many there are of a total.
func (p page) pages(total int64) int32 { return int32((total + int64(p.size) - 1) / int64(p.size)) }

// cut is the page of a whole list.
func cut[T any](list []T, p page) []T {
	from := min(p.skip(), len(list))
	return list[from:min(from+p.size, len(list))]
}
