package pglocal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMajor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version string
		want    int
	}{
		{"postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", 15},
		{"postgres (PostgreSQL) 17.2\n", 17},
		{"postgres (PostgreSQL) 18beta1\n", 18},
		{"postgres (PostgreSQL) 18", 18},
		{"postgres (PostgreSQL) 9.6.24\n", 9},
		{"psql: not found", 0},
		{"", 0},
	} {
		if got := parseMajor(c.version); got != c.want {
			t.Errorf("parseMajor(%q) = %d, want %d", c.version, got, c.want)
		}
	}
}

func TestFindTakesWhatRunsAndIsNewEnough(t *testing.T) {
	t.Parallel()
	root := sharedTemp(t)
	fake := func(name, version string, programs ...string) string {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
			if err := os.WriteFile(filepath.Join(dir, p), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dirs := []string{
		"relative",
		filepath.Join(root, "absent"),
		fake("old", "13.9", "postgres", "initdb"),
		fake("client", "16.1", "postgres"),
		fake("sixteen", "16.1", "postgres", "initdb"),
		fake("fourteen", "14.2", "postgres", "initdb"),
	}
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	want := []binaries{{filepath.Join(root, "sixteen"), 16}, {filepath.Join(root, "fourteen"), 14}}
	got := find(t.Context(), acct, dirs)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(binaries{})); diff != "" {
		t.Errorf("find (-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	found := []binaries{{"/a", 17}, {"/b", 15}}
	for _, c := range []struct {
		name    string
		want    int
		choice  string
		refusal error
	}{
		{"the first serves new data", 0, "/a", nil},
		{"existing data gets its version", 15, "/b", nil},
		{"no other version serves existing data", 16, "", ErrVersion},
	} {
		got, err := choose(found, c.want)
		if got.dir != c.choice || !errors.Is(err, c.refusal) {
			t.Errorf("%s: choose(%d) = %q, %v; want %q, %v", c.name, c.want, got.dir, err, c.choice, c.refusal)
		}
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	got := []string{"/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/17/bin", "/opt/postgresql/bin", "/usr/lib/postgresql/15/bin"}
	slices.SortFunc(got, newestFirst)
	want := []string{"/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/9.6/bin", "/opt/postgresql/bin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestForbidMainClusterRespectsTheOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgresql-common")
	conf := filepath.Join(dir, "createcluster.conf")
	if err := forbidMainCluster(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(conf); err != nil || string(b) != "create_main_cluster = false\n" {
		t.Errorf("createcluster.conf = %q, %v", b, err)
	}
	if err := os.WriteFile(conf, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := forbidMainCluster(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(conf); err != nil || string(b) != "mine" {
		t.Errorf("createcluster.conf = %q, %v; want it left alone", b, err)
	}
}

func TestFailedInstallShowsWhatThePackageManagerSaid(t *testing.T) {
	t.Parallel()
	i := installer{program: "sh", steps: [][]string{
		{"-c", "exit 7"}, // an update that fails is not fatal
		{"-c", "echo unable to locate package; exit 100"},
	}}
	err := i.run(t.Context(), "/bin/sh")
	if err == nil || !strings.Contains(err.Error(), "unable to locate package") {
		t.Errorf("run = %v, want the output in it", err)
	}
}
