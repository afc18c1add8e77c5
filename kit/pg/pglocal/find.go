package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// binaries is a directory with postgres and initdb, and their major version.
type binaries struct {
	dir   string
	major int
}

// oldest major version that is used: initdb learned --no-instructions in it.
const oldest = 14

// locate returns the programs to run and the user to run them as. For want, the
// version that existing data needs, nothing else will do; zero takes the first
// that is found. What is not there is installed, then downloaded.
func locate(ctx context.Context, want int, progress io.Writer) (binaries, account, error) {
	acct, err := serverAccount()
	if err != nil {
		return binaries{}, account{}, err
	}
	found := find(ctx, acct, searchDirs(acct.cacheDir(ctx)))
	var errs []error
	if len(found) == 0 {
		errs = append(errs, install(ctx, progress))
		// The package may bring the user postgres along.
		if acct, err = serverAccount(); err != nil {
			return binaries{}, account{}, err
		}
		found = find(ctx, acct, searchDirs())
	}
	if len(found) == 0 {
		fmt.Fprintln(progress, "downloading postgresql", string(downloaded))
		dir, err := download("", acct.cacheDir(ctx))
		errs = append(errs, err)
		found = find(ctx, acct, []string{dir})
	}
	if len(found) == 0 {
		return binaries{}, account{}, fmt.Errorf("postgresql %d or newer is not installed: %w", oldest, errors.Join(errs...))
	}
	bin, err := choose(found, want)
	return bin, acct, err
}

// choose picks the first, but of the version that existing data needs.
func choose(found []binaries, want int) (binaries, error) {
	if want == 0 {
		return found[0], nil
	}
	have := make([]string, len(found))
	for i, b := range found {
		if b.major == want {
			return b, nil
		}
		have[i] = fmt.Sprintf("%d (%s)", b.major, b.dir)
	}
	return binaries{}, fmt.Errorf("%w: it was written by PostgreSQL %d, but here is %s; install PostgreSQL %d, or dump and restore",
		ErrVersion, want, strings.Join(have, ", "), want)
}

// searchDirs lists where PostgreSQL's programs may be, best first: PATH, then
// the places that package managers keep out of it, newest first, then extra.
func searchDirs(extra ...string) []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                          // Debian
		"/usr/libexec/postgresql*",                           // Alpine
		"/usr/pgsql-*/bin",                                   // PostgreSQL's own RPMs
		"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	} {
		matches, _ := filepath.Glob(pattern) // the patterns are well formed
		slices.SortFunc(matches, newestFirst)
		dirs = append(dirs, matches...)
	}
	return append(dirs, extra...)
}

// newestFirst orders directories by the version in their names, so that 15
// comes before 9.6.
func newestFirst(a, b string) int {
	return versionIn(b) - versionIn(a)
}

func versionIn(dir string) int {
	digits := strings.FieldsFunc(dir, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(digits[0]) // digits only
	return n
}

// find returns what in dirs the account can run and is new enough.
func find(ctx context.Context, acct account, dirs []string) []binaries {
	var found []binaries
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) || !isFile(filepath.Join(dir, "initdb")) || !isFile(filepath.Join(dir, "postgres")) {
			continue
		}
		out, err := acct.command(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		if major := parseMajor(string(out)); major >= oldest {
			found = append(found, binaries{dir, major})
		}
	}
	return found
}

// parseMajor reads "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)" or
// "postgres (PostgreSQL) 18beta1"; zero if it cannot.
func parseMajor(version string) int {
	_, number, _ := strings.Cut(version, "(PostgreSQL) ")
	end := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(number)
	}
	major, _ := strconv.Atoi(number[:end])
	return major
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
