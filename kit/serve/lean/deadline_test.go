package lean

import (
	"slices"
	"testing"
	"time"
)

// TestADeadlineIsSetWhereSomethingRuns says what the connection gets, and when.
func TestADeadlineIsSetWhereSomethingRuns(t *testing.T) {
	t.Parallel()
	soon, later := time.Unix(1000, 0), time.Unix(2000, 0)
	steps := map[string]func(d *deadline) error{
		"soon": func(d *deadline) error { return d.set(soon) }, "later": func(d *deadline) error { return d.set(later) },
		"never": func(d *deadline) error { return d.set(time.Time{}) }, "clear": (*deadline).clear,
		"begin": (*deadline).begin, "end": func(d *deadline) error { d.end(); return nil },
	}
	for name, tt := range map[string]struct {
		do   []string
		want []time.Time
	}{
		"never where nothing does":          {[]string{"soon"}, nil},
		"nor where it was taken off before": {[]string{"soon", "never", "begin"}, nil},
		"with what begins":                  {[]string{"soon", "begin"}, []time.Time{soon}},
		"once":                              {[]string{"soon", "begin", "end", "begin"}, []time.Time{soon}},
		"while it runs":                     {[]string{"begin", "soon", "later"}, []time.Time{soon, later}},
		"not when it has ended":             {[]string{"soon", "begin", "end", "later"}, []time.Time{soon}},
		"and is taken off at the end":       {[]string{"soon", "begin", "end", "clear"}, []time.Time{soon, {}}},
		"if it was set":                     {[]string{"soon", "clear"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []time.Time
			d := deadline{apply: func(at time.Time) error { got = append(got, at); return nil }}
			for _, step := range tt.do {
				noError(t, steps[step](&d))
			}
			if !slices.EqualFunc(got, tt.want, time.Time.Equal) {
				t.Errorf("the connection got %v, want %v", got, tt.want)
			}
		})
	}
}
