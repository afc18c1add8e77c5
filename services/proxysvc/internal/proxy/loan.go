package proxy

import "sync/atomic"

// Loan counts who reads a request's body. When nobody does any more, its buffer may
// become another request's. Nil is the loan of a body that stays its request's.
type Loan struct {
	readers atomic.Int64
	spoiled atomic.Bool
	end     func(spoiled bool)
}

// NewLoan makes a loan with one reader. end is called when there is none any more;
// spoiled says that nobody can tell for certain.
func NewLoan(end func(spoiled bool)) *Loan {
	l := &Loan{end: end}
	l.readers.Store(1)
	return l
}

// Hold adds a reader. The caller must be one, or act for one.
func (l *Loan) Hold() {
	if l != nil {
		l.readers.Add(1)
	}
}

// Release takes a reader away: it does not read the body after it.
func (l *Loan) Release() {
	if l != nil && l.readers.Add(-1) == 0 {
		l.end(l.spoiled.Load())
	}
}

// Spoil says that something went wrong, so that the buffer is nobody's again.
func (l *Loan) Spoil() { l.spoiled.Store(true) }
