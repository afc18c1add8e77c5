package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The garbage collector's work for a request is what is alive, divided by what may be
// allocated until it runs again. Little is alive here, so that with Go's default of
// "as much again" one cycle follows the other and takes a quarter of the CPU. The heap
// may grow to a floor first; above it, with thousands of streams, a third of what is
// alive must do: streams allocate little.
const (
	heapFloor  = 72 << 20
	heapGrowth = 0.35
)

// paceCollector sets the goal of each cycle by what the one before has left alive,
// unless the operator has set GOGC.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	var pace func(*[1]*byte)
	pace = func(*[1]*byte) {
		metrics.Read(samples)
		live := float64(samples[0].Value.Uint64())
		roots := live + float64(samples[1].Value.Uint64()+samples[2].Value.Uint64())
		debug.SetGCPercent(int(100 * max(heapGrowth, (heapFloor-live)/max(roots, heapFloor/8)))) // at first nothing is alive
		runtime.SetFinalizer(new([1]*byte), pace)                                                // it is dead at once, so the next cycle ends with another call
	}
	pace(nil)
}
