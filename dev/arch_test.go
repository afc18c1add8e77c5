package dev

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const root = "github.com/proliferate-ai/llm-proxy/"

// rules are the imports that must not be, each with its reason. A from or to
// that ends in "/" stands for everything below it.
var rules = []struct{ from, to, why string }{
	{"gen/", "kit/", "gen is output"},
	{"gen/", "services/", "gen is output"},
	{"kit/", "gen/", "kit knows no contract"},
	{"kit/", "services/", "kit knows no service"},
	{"kit/", "sim/", "kit knows no vendor"},
	{"sim/", "gen/", "a simulator knows its vendor only"},
	{"sim/", "services/", "a simulator knows its vendor only"},
	{"sdk/", "gen/", "an SDK needs the standard library only"},
	{"sdk/", "kit/", "an SDK needs the standard library only"},
	{"sdk/", "services/", "an SDK needs the standard library only"},
	{"services/keysvc", "services/proxysvc", "services call each other, they do not import"},
	{"services/keysvc", "services/billingsvc", "services call each other, they do not import"},
	{"services/keysvc", "services/outboxsvc", "services call each other, they do not import"},
	{"services/proxysvc", "services/keysvc", "services call each other, they do not import"},
	{"services/proxysvc", "services/billingsvc", "services call each other, they do not import"},
	{"services/proxysvc", "services/outboxsvc", "services call each other, they do not import"},
	{"services/billingsvc", "services/keysvc", "services call each other, they do not import"},
	{"services/billingsvc", "services/proxysvc", "services call each other, they do not import"},
	{"services/billingsvc", "services/outboxsvc", "services call each other, they do not import"},
	{"services/outboxsvc", "services/keysvc", "services call each other, they do not import"},
	{"services/outboxsvc", "services/proxysvc", "services call each other, they do not import"},
	{"services/outboxsvc", "services/billingsvc", "services call each other, they do not import"},
	{"services/", "sim/", "a service does not know that it is simulated"},
	{"services/", "dev/", "dev is imported by nobody"},
	{"cmd/", "dev/", "dev is imported by nobody"},
	{"kit/", "dev/", "dev is imported by nobody"},
}

// domains are the packages that hold rules only: no wire, no SQL, no logging.
var domains = []string{
	"services/keysvc/internal/key",
	"services/proxysvc/internal/proxy", "services/proxysvc/internal/ledger", "services/proxysvc/internal/pricing",
	"services/billingsvc/internal/billing",
	"services/outboxsvc/internal/relay",
}

// forDomains are what a domain may never import.
var forDomains = []string{
	root + "gen/", root + "kit/serve", root + "kit/pg", "google.golang.org/grpc", "github.com/jackc/pgx/", "go.uber.org/zap", "net/http",
}

// kits are the imports between packages of kit; there are no others.
var kits = map[string][]string{
	"kit/serve":           {"kit/env", "kit/fault", "kit/secret", "kit/serve/lean", "kit/virtualkey"},
	"kit/serve/lean":      {"kit/head", "kit/leash", "kit/sock"},
	"kit/virtualkey":      {"kit/secret"},
	"kit/serve/scopetest": {"kit/secret", "kit/serve"},
	"kit/pg":              {"kit/sock"},
	"kit/pg/pgmigrate":    {"kit/pg"},
	"kit/pg/pgtest":       {"kit/pg/pgmigrate", "kit/pg/pglocal"},
}

type pkg struct {
	path, doc string
	imports   []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}}\t{{.Doc}}\t{{join .Imports \" \"}}", "work")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		for len(f) < 3 {
			f = append(f, "")
		}
		all = append(all, pkg{strings.TrimPrefix(f[0], root), f[1], strings.Fields(f[2])})
	}
	if len(all) < 30 {
		t.Fatalf("go list found %d packages: the test would prove nothing", len(all))
	}
	return all
}

func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range packages(t) {
		seen[p.path] = true
		for _, imported := range p.imports {
			own := strings.TrimPrefix(imported, root)
			for _, r := range rules {
				if below(p.path, r.from) && own != imported && below(own, r.to) {
					t.Errorf("%s imports %s: %s", p.path, own, r.why)
				}
			}
			if own != imported && below(p.path, "kit/") && below(own, "kit/") && !slices.Contains(kits[p.path], own) {
				t.Errorf("%s imports %s: packages of kit stand alone", p.path, own)
			}
			if slices.Contains(domains, p.path) {
				for _, no := range forDomains {
					if imported == no || strings.HasPrefix(imported, strings.TrimSuffix(no, "/")+"/") {
						t.Errorf("%s imports %s: a domain holds rules only", p.path, imported)
					}
				}
			}
		}
	}
	for _, d := range domains {
		if !seen[d] {
			t.Errorf("the domain %s does not exist: the list is out of date", d)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.doc == "" && !below(p.path, "gen/") {
			t.Errorf("%s has no package comment", p.path)
		}
	}
}

func below(path, prefix string) bool {
	return path == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}
