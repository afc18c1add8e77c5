package main

import (
	"fmt"
	"slices"
	"time"
)

// must is a line of the table: what has to hold.
type must struct {
	figure, scenario string
	must, aim        float64 // at most; 0: it is told only
	unit             string
	// value is the figure in one round of the scenario; false: something that it
	// needs was not measured.
	value func(r round) (float64, bool)
}

// field is one of a target's figures.
type field func(f *figures) float64

func proxyCPU(f *figures) float64   { return float64(f.proxy) }
func totalCPU(f *figures) float64   { return float64(f.total()) }
func firstByte(f *figures) float64  { return float64(f.ttfb.At(0.5)) }
func deltaLag(f *figures) float64   { return float64(f.lag.At(0.5)) }
func endLag50(f *figures) float64   { return float64(f.last.At(0.5)) }
func endLag99(f *figures) float64   { return float64(f.last.At(0.99)) }
func memoryUsed(f *figures) float64 { return float64(f.memory) }

// musts is the table, in its order.
func musts() []must {
	const ms, mb = float64(time.Millisecond), float64(1 << 20)
	vs := func(scenario, figure string, of field, peer string, most, aim float64) must {
		return must{figure: figure + " ÷ " + peer, scenario: scenario, must: most, aim: aim, value: ratio(of, proxyCPU, peer)}
	}
	return []must{
		vs("plain64", "proxy CPU/request", proxyCPU, reverse, 0.9, 0.5),
		vs("limited64", "proxy CPU/request", proxyCPU, reverse, 0.9, 0.5),
		vs("plain64", "proxy CPU/request", proxyCPU, nginx, 3.2, 1.7),
		vs("limited64", "proxy CPU/request", proxyCPU, nginx, 3.2, 1.7),
		vs("plain64", "proxy + database CPU", totalCPU, nginx, 5, 3),
		vs("limited64", "proxy + database CPU", totalCPU, nginx, 5, 3),
		vs("plain8", "proxy + database CPU", totalCPU, portkey, 0.1, 0.05),
		vs("plain64", "proxy + database CPU", totalCPU, portkey, 0.1, 0.05),
		vs("paced200", "CPU/stream", proxyCPU, nginx, 2, 1.4),
		vs("paced1000", "CPU/stream", proxyCPU, nginx, 2, 1.4),
		{figure: "added time to first byte, p50", scenario: "light", must: 0.6, aim: 0.4, unit: "ms", value: added(firstByte, ms)},
		// No must: a first byte waits for its admission's commit, which takes as long by itself.
		{figure: "… of an upstream that answers at once", scenario: "instant", unit: "ms", value: added(firstByte, ms)},
		{figure: "added delta lag, p50 ÷ nginx's", scenario: "paced1000", must: 3, aim: 1.5, value: addedRatio(deltaLag, nginx)},
		{figure: "last upstream event → last client byte, p50", scenario: "paced200", must: 5, aim: 2, unit: "ms", value: ours(endLag50, ms)},
		{figure: "last upstream event → last client byte, p99", scenario: "paced200", must: 30, aim: 10, unit: "ms", value: ours(endLag99, ms)},
		{figure: "memory at 1,000 open streams", scenario: "paced1000", must: 120, aim: 60, unit: "MB", value: ours(memoryUsed, mb)},
		vs("body200k", "CPU/request", proxyCPU, reverse, 0.9, 0.6),
		vs("body1m", "CPU/request", proxyCPU, reverse, 0.9, 0.6),
		growth("growkeys", "700 times the keys"), growth("growteams", "1,000 times the teams"),
		growth("growstreams", "1,000 open streams"), growth("growrows", "1,000,000 rows more"), growth("keys1m", "1,000,000 keys more"),
	}
}

// growth is what a request costs when something has grown, by what it cost before.
func growth(scenario, what string) must {
	return must{figure: "proxy + database CPU, " + what, scenario: scenario, must: 1.2, aim: 1.2, value: func(r round) (float64, bool) {
		before, now := r[few], r[grown]
		if before == nil || now == nil || before.total() == 0 {
			return 0, false
		}
		return totalCPU(now) / totalCPU(before), true
	}}
}

// ratio is our figure divided by a peer's of the same round.
func ratio(of, by field, peer string) func(round) (float64, bool) {
	return func(r round) (float64, bool) {
		our, other := r[proxysvc], r[peer]
		if our == nil || other == nil || by(other) == 0 {
			return 0, false
		}
		return of(our) / by(other), true
	}
}

// ours is our figure in a unit.
func ours(of field, unit float64) func(round) (float64, bool) {
	return func(r round) (float64, bool) {
		our := r[proxysvc]
		if our == nil {
			return 0, false
		}
		return of(our) / unit, true
	}
}

// added is what is more than without any proxy.
func added(of field, unit float64) func(round) (float64, bool) {
	return func(r round) (float64, bool) {
		our, none := r[proxysvc], r[direct]
		if our == nil || none == nil {
			return 0, false
		}
		return (of(our) - of(none)) / unit, true
	}
}

// addedRatio is what we add divided by what a peer adds, which counts as ten
// microseconds at least: less than that is noise.
func addedRatio(of field, peer string) func(round) (float64, bool) {
	return func(r round) (float64, bool) {
		our, other, none := r[proxysvc], r[peer], r[direct]
		if our == nil || other == nil || none == nil {
			return 0, false
		}
		return (of(our) - of(none)) / max(of(other)-of(none), float64(10*time.Microsecond)), true
	}
}

// spread is a median with the least and the greatest.
type spread struct {
	median, least, most float64
	n                   int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	median := v[len(v)/2]
	if len(v)%2 == 0 {
		median = (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return spread{median, v[0], v[len(v)-1], len(v)}
}

func (s spread) String() string {
	if s.most == 0 && s.least == 0 {
		return "–"
	}
	if s.n == 1 {
		return digits(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", digits(s.median), digits(s.least), digits(s.most))
}

// digits prints a figure as exactly as it is known.
func digits(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
