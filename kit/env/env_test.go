package env

import (
	"strings"
	"testing"
	"time"
)

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"A": "soon", "B": "-3", "D": "red"}
	r := Reader{Get: func(name string) string { return vars[name] }}
	r.Duration("A", time.Second)
	r.Int("B", 1, 0, 10)
	r.Need("C", "a URL")
	r.OneOf("D", "a", "a", "b")
	err := r.Err()
	if err == nil {
		t.Fatal("Err() = nil, want four faults")
	}
	for _, name := range []string{"A: ", "B: ", "C: ", "D: "} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %s: %v", name, err)
		}
	}
}

func TestDefaultsAndValues(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"D": "100ms", "L": " a, ,b ", "N": "7"}
	r := Reader{Get: func(name string) string { return vars[name] }}
	if got := r.Duration("D", time.Second); got != 100*time.Millisecond {
		t.Errorf("Duration = %v", got)
	}
	if got := r.Duration("E", time.Second); got != time.Second {
		t.Errorf("default Duration = %v", got)
	}
	if got := strings.Join(r.List("L"), "|"); got != "a|b" {
		t.Errorf("List = %q", got)
	}
	if got := r.Int("N", 1, 0, 10); got != 7 {
		t.Errorf("Int = %d", got)
	}
	if r.Err() != nil {
		t.Errorf("Err = %v, want nil", r.Err())
	}
}
