package dev

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestTheConformanceTableIsTrue calls every route that docs/litellm.md names: those
// that it says are not there are not, by either method, those that it says are
// refused for good get 501, and all others are served.
func TestTheConformanceTableIsTrue(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	base := "http://" + s.start("proxysvc").http
	route := regexp.MustCompile("`((?:GET|POST) )?(/[^ `]*)`")
	walked := 0
	for line := range strings.Lines(read(t, "docs/litellm.md")) {
		columns := strings.Split(line, "|")
		if len(columns) < 4 {
			continue
		}
		methods, differs := []string{http.MethodGet, http.MethodPost}, strings.TrimSpace(columns[3])
		for _, m := range route.FindAllStringSubmatch(columns[1], -1) {
			if m[1] != "" {
				methods = []string{strings.TrimSpace(m[1])}
			}
			for _, method := range methods {
				walked++
				resp := call(t, method, base+strings.NewReplacer("{", "", "}", "", "*", "").Replace(m[2]), masterKey, "{}")
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				served := resp.StatusCode != http.StatusMethodNotAllowed && !noRoute.Match(text)
				if served == strings.HasPrefix(differs, "not there") ||
					(resp.StatusCode == http.StatusNotImplemented) != strings.HasPrefix(differs, "501") {
					t.Errorf("%s %s: %d %.200s\nthe table says %q", method, m[2], resp.StatusCode, text, differs)
				}
			}
		}
	}
	if walked < 80 {
		t.Errorf("only %d routes were called", walked)
	}
}

// noRoute is what both halves of the proxy say of a path that they do not know.
var noRoute = regexp.MustCompile(`"detail":"Not Found"|"message":"Not found"`)
