// Package hotpath holds the operations that every request runs to how often they
// allocate, and times them.
package hotpath

import "testing"

// Operation is one that every request, or every event of a stream, runs.
type Operation struct {
	Name   string
	Allocs float64 // at most
	Run    func()
}

// Hold fails when an operation allocates more often than it did. The race detector
// allocates too, so `make allocs` runs it without.
func Hold(t *testing.T, ops []Operation) {
	t.Helper()
	for _, op := range ops {
		if got := testing.AllocsPerRun(1000, op.Run); got > op.Allocs {
			t.Errorf("%s allocates %v times, want at most %v", op.Name, got, op.Allocs)
		}
	}
}

// Bench times operations.
func Bench(b *testing.B, ops []Operation) {
	b.Helper()
	for _, op := range ops {
		b.Run(op.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				op.Run()
			}
		})
	}
}
