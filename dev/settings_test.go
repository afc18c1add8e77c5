package dev

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

// TestTheSettingsAreDocumented compares the table in each service's README with
// what its LoadConfig reads.
func TestTheSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	type getenv = func(string) string
	for name, load := range map[string]func(getenv) error{
		"keysvc":     func(g getenv) error { _, err := keysvc.LoadConfig(g); return err },
		"proxysvc":   func(g getenv) error { _, err := proxysvc.LoadConfig(g); return err },
		"billingsvc": func(g getenv) error { _, err := billingsvc.LoadConfig(g); return err },
		"outboxsvc":  func(g getenv) error { _, err := outboxsvc.LoadConfig(g); return err },
	} {
		readme, err := os.ReadFile("../services/" + name + "/README.md")
		if err != nil {
			t.Fatal(err)
		}
		var documented, read []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(readme), -1) {
			documented = append(documented, m[1])
		}
		if load(func(name string) string { read = append(read, name); return "" }) == nil {
			t.Errorf("%s runs without any setting", name)
		}
		slices.Sort(documented)
		slices.Sort(read)
		if diff := cmp.Diff(slices.Compact(read), documented); diff != "" {
			t.Errorf("%s: settings (-read +documented):\n%s", name, diff)
		}
	}
}
