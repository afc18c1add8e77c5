package pglocal

import (
	"archive/zip"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDownload(t *testing.T) {
	t.Parallel()
	repository := httptest.NewServer(http.HandlerFunc(serveJar))
	defer repository.Close()
	cache := sharedTemp(t)
	bin := filepath.Join(cache, "llmproxy", "postgresql-18", "bin")

	var wg sync.WaitGroup
	for range 3 { // as by several test binaries at once
		wg.Go(func() {
			if got, err := download(repository.URL, bin); got != bin || err != nil {
				t.Errorf("download = %q, %v; want %q", got, err, bin)
			}
		})
	}
	wg.Wait()

	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	want := []binaries{{bin, 18}}
	if diff := cmp.Diff(want, find(t.Context(), acct, []string{bin}), cmp.AllowUnexported(binaries{})); diff != "" {
		t.Errorf("find (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(filepath.Join(cache, "llmproxy")); err != nil || len(left) != 1 {
		t.Errorf("cache holds %v, %v; want the programs only", left, err)
	}
}

func TestFailedDownloadSaysWhere(t *testing.T) {
	t.Parallel()
	repository := httptest.NewServer(http.NotFoundHandler())
	defer repository.Close()
	cache := t.TempDir()
	_, err := download(repository.URL, filepath.Join(cache, "postgresql-18", "bin"))
	if err == nil || !strings.Contains(err.Error(), "no version found") {
		t.Errorf("download = %v, want the reason", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("cache holds %v, %v; want nothing", left, err)
	}
}

// serveJar answers as Maven Central does: a zip with the archive of a few
// scripts that pretend to be PostgreSQL, and no checksum.
func serveJar(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, ".jar") {
		http.NotFound(w, r)
		return
	}
	archive, err := os.ReadFile("testdata/postgres.txz")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	z := zip.NewWriter(w)
	f, err := z.Create("postgres.txz")
	if err == nil {
		_, err = f.Write(archive)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err) // httptest reports it
	}
}
