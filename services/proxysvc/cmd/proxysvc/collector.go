package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// The garbage collector's work for a request is what is alive, divided by what may be
// allocated until it runs again. Little is alive here, so that with Go's default of
// "as much again" one cycle follows the other and takes a quarter of the CPU. The heap
// may grow to a floor first, and further, up to a ceiling, while cycles follow each
// other faster than once a second, as large bodies make them; above that, with
// thousands of streams, a third of what is alive must do: streams allocate little.
const (
	heapFloor   = 64 << 20
	heapCeiling = 224 << 20
	heapGrowth  = 0.35

	busy  = time.Second     // between two cycles
	quiet = 2 * time.Second // since the last one
)

// collector paces the garbage collector.
type collector struct {
	mu      sync.Mutex
	goal    float64 // of the heap, where little is alive
	last    time.Time
	samples []metrics.Sample
}

// paceCollector sets the goal of each cycle by what the one before has left alive,
// unless the operator has set GOGC.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	c := &collector{
		goal: heapFloor, last: time.Now(),
		samples: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}},
	}
	c.cycle(nil)
	go func() { // as long as the process
		for range time.Tick(quiet) {
			c.calm()
		}
	}()
}

// cycle notes the end of a cycle, and has itself called after the next one.
func (c *collector) cycle(*[1]*byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.last) < busy {
		c.goal = math.Min(1.5*c.goal, heapCeiling)
	}
	c.last = now
	c.set()
	runtime.SetFinalizer(new([1]*byte), c.cycle) // it is dead at once, so the next cycle ends with another call
}

// calm lets the heap shrink again when there was no cycle for a while.
func (c *collector) calm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goal > heapFloor && time.Since(c.last) >= quiet {
		c.goal = math.Max(c.goal/1.5, heapFloor)
		c.set()
	}
}

func (c *collector) set() {
	metrics.Read(c.samples)
	live := float64(c.samples[0].Value.Uint64())
	roots := live + float64(c.samples[1].Value.Uint64()+c.samples[2].Value.Uint64())
	debug.SetGCPercent(int(100 * max(heapGrowth, (c.goal-live)/max(roots, heapFloor/8)))) // at first nothing is alive
}
