package key

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Duration is a span of time in LiteLLM's grammar: a whole number of seconds
// or of calendar months.
type Duration struct {
	seconds, months int64
}

// units are tried in this order; "mo" comes before its prefix "m".
var units = []struct {
	name            string
	seconds, months int64
}{
	{"mo", 0, 1}, {"s", 1, 0}, {"m", 60, 0}, {"h", 3600, 0}, {"d", 86400, 0}, {"w", 7 * 86400, 0},
}

const longestDuration = 64 // characters; keeps refusals short

// ParseDuration reads digits and a unit: s, m, h, d, w or mo. Like LiteLLM it
// matches only the beginning, so "30min" is 30 minutes.
func ParseDuration(s string) (Duration, error) {
	if len(s) > longestDuration {
		return Duration{}, fault.Errorf(fault.Invalid, "a duration has at most %d characters", longestDuration)
	}
	rest := strings.TrimLeft(s, "0123456789")
	digits := s[:len(s)-len(rest)]
	for _, u := range units {
		if digits == "" || !strings.HasPrefix(rest, u.name) {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/max(u.seconds, 1) {
			return Duration{}, errTooLong(s)
		}
		return Duration{seconds: n * u.seconds, months: n * u.months}, nil
	}
	return Duration{}, fault.Errorf(fault.Invalid,
		"Unsupported duration unit, passed duration: %q; use a number and s, m, h, d, w or mo, such as 24h", s)
}

// lastYear is the last one that a protobuf timestamp can hold.
const lastYear = 9999

// After returns the instant that lies d after t, in UTC. A month later is the
// same day of the next month, or that month's last day when it is shorter.
func (d Duration) After(t time.Time) (time.Time, error) {
	t = t.UTC()
	limit := time.Date(lastYear+1, time.January, 1, 0, 0, 0, 0, time.UTC)
	if d.months > 12*lastYear || d.seconds > limit.Unix()-t.Unix() {
		return time.Time{}, errTooLong(d.String())
	}
	end := time.Unix(t.Unix()+d.seconds, int64(t.Nanosecond())).UTC()
	if d.months > 0 {
		first := time.Date(t.Year(), t.Month()+time.Month(d.months), 1,
			t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		last := first.AddDate(0, 1, -1).Day()
		end = first.AddDate(0, 0, min(t.Day(), last)-1)
	}
	if !end.Before(limit) {
		return time.Time{}, errTooLong(d.String())
	}
	return end, nil
}

// String writes d so that ParseDuration reads it back.
func (d Duration) String() string {
	if d.months > 0 {
		return strconv.FormatInt(d.months, 10) + "mo"
	}
	return strconv.FormatInt(d.seconds, 10) + "s"
}

func errTooLong(s string) error {
	return fault.Errorf(fault.Invalid, "duration %q is too long: it must end before the year %d", s, lastYear+1)
}
