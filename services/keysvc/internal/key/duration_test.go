package key

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

func TestDurationEndsWhereLiteLLMEndsIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, duration, from, want string
	}{
		{"seconds", "90s", "2026-05-01T12:00:00Z", "2026-05-01T12:01:30Z"},
		{"minutes", "30m", "2026-05-01T12:00:00Z", "2026-05-01T12:30:00Z"},
		{"only the beginning counts", "30min", "2026-05-01T12:00:00Z", "2026-05-01T12:30:00Z"},
		{"hours", "24h", "2026-05-01T12:00:00Z", "2026-05-02T12:00:00Z"},
		{"days", "7d", "2026-05-01T12:00:00Z", "2026-05-08T12:00:00Z"},
		{"weeks", "2w", "2026-05-01T12:00:00Z", "2026-05-15T12:00:00Z"},
		{"a month ends on the same day", "1mo", "2026-05-15T12:00:00Z", "2026-06-15T12:00:00Z"},
		{"months are tried before minutes", "1month", "2026-05-15T12:00:00Z", "2026-06-15T12:00:00Z"},
		{"a shorter month ends on its last day", "1mo", "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"},
		{"a leap year has a longer February", "1mo", "2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z"},
		{"months go over the year", "14mo", "2026-11-30T12:00:00Z", "2028-01-30T12:00:00Z"},
		{"zero ends at once", "0s", "2026-05-01T12:00:00Z", "2026-05-01T12:00:00Z"},
		{"leading zeros do not count", "007d", "2026-05-01T12:00:00Z", "2026-05-08T12:00:00Z"},
		{"microseconds are kept", "1s", "2026-05-01T12:00:00.000001Z", "2026-05-01T12:00:01.000001Z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := ParseDuration(tt.duration)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.After(instant(t, tt.from))
			if err != nil {
				t.Fatal(err)
			}
			if want := instant(t, tt.want); !got.Equal(want) {
				t.Errorf("%s after %s = %s, want %s", tt.duration, tt.from, got, want)
			}
		})
	}
}

func TestDurationRefusesWhatLiteLLMRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "30", "h", "-1d", "1y", "1.5h", " 1h", "٣d", "99999999999999999999s", "9223372036854775807w",
		"9223372036854775807s", "9223372036854775807mo", "8000y", "3000000d", "100000mo",
	} {
		d, err := ParseDuration(s)
		if err == nil {
			_, err = d.After(instant(t, "2026-05-01T12:00:00Z"))
		}
		if got := fault.KindOf(err); got != fault.Invalid {
			t.Errorf("duration %q: %v, want an Invalid fault", s, err)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30s", "30min", "1mo", "12month", "999999999999999999w", "9223372036854775807mo", "1", ""} {
		f.Add(s, int64(1_777_636_800_000_001))
	}
	f.Fuzz(func(t *testing.T, s string, micros int64) {
		d, err := ParseDuration(s)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("ParseDuration(%q): %v, want an Invalid fault", s, err)
			}
			return
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("ParseDuration(%q) = %+v, %v, want what %q gave: %+v", d.String(), again, err, s, d)
		}
		from := time.UnixMicro(micros & (1<<52 - 1)) // 1970 to 2112
		end, err := d.After(from)
		switch {
		case err != nil && fault.KindOf(err) != fault.Invalid:
			t.Fatalf("%q after %s: %v, want an Invalid fault", s, from, err)
		case err == nil && (end.Before(from) || end.Year() > lastYear):
			t.Fatalf("%q after %s = %s", s, from, end)
		}
	})
}

func instant(t *testing.T, s string) time.Time {
	t.Helper()
	i, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}
