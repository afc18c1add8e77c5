package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestChaos tries seeds one after the other: each has the machine for itself.
func TestChaos(t *testing.T) {
	first, seeds := number(t, "CHAOS_FIRST", 1), number(t, "CHAOS_SEEDS", 3)
	binaries, pg := build(t), newPostgres(t)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { try(t, pg, binaries, seed) })
	}
}

func try(t *testing.T, pg *postgres, binaries string, seed uint64) {
	began := time.Now()
	s := newStand(t, pg, binaries, newPlan(seed))
	ready := time.Now()
	all := s.storm()
	stormed := time.Now()
	v := s.check(all)
	word := "holds"
	if len(v.faults) > 0 || t.Failed() {
		word = fmt.Sprintf("BROKEN, %d faults", len(v.faults))
	}
	t.Logf("seed %d: %s; %s; lost to deaths %s nano-dollars; %.1f s to start, %.1f s of storm, %.1f s to the verdict: %s",
		seed, s.tally(all), v.tally(), v.unbilled, ready.Sub(began).Seconds(), stormed.Sub(ready).Seconds(), time.Since(stormed).Seconds(), word)
	for _, fault := range v.faults {
		t.Errorf("seed %d: %s", seed, fault)
	}
}

// tally counts what the clients saw and what was done to the suite.
func (s *stand) tally(all []attempt) string {
	var whole, without, left, spent, limited, deaths, cuts, fenced int
	for _, a := range all {
		switch {
		case a.complete:
			whole++
			if s.outages.during(a.ended) {
				without++
			}
		case a.left:
			left++
		case a.refusal == "billing_error":
			spent++
		case a.refusal == "rate_limit_error":
			limited++
		}
	}
	for _, svc := range s.services {
		deaths += svc.died()
		fenced += strings.Count(svc.log.String(), "this log was fenced")
	}
	for _, l := range s.links {
		cuts += l.total()
	}
	return fmt.Sprintf("%d requests, %d complete (%d while Postgres was away), %d left, %d times 402, %d times 429; %d deaths, %d logs fenced alive, %d cuts",
		len(all), whole, without, left, spent, limited, deaths, fenced, cuts)
}

// tally counts the rows by status.
func (v *verdict) tally() string {
	text := fmt.Sprintf("%d rows:", v.rows)
	for _, status := range slices.Sorted(maps.Keys(v.status)) {
		text += fmt.Sprintf(" %d %s", v.status[status], status)
	}
	return text
}

// number reads a setting of the run.
func number(t *testing.T, name string, def uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
