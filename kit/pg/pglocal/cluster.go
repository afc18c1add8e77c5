package pglocal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cluster is what a server needs on disk. Until launch the caller closes it.
type cluster struct {
	bin      binaries
	acct     account
	data     string // PGDATA; made by cluster.sh if absent
	pwfile   string // for initdb
	password string
	log      *os.File
	lock     *os.File // nil if ephemeral
	remove   string   // temporary directory; empty if durable
}

// sharedDir holds the data of servers whose own directory PostgreSQL's user may
// not enter, such as those below /root.
const sharedDir = "/var/lib/llmproxy"

func openCluster(ctx context.Context, o Options) (*cluster, error) {
	c := &cluster{}
	open := c.openDurable
	if o.Ephemeral {
		open = c.openEphemeral
	}
	if err := open(ctx, o); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// close releases what openCluster took; a temporary directory goes too.
func (c *cluster) close() error {
	var errs []error
	if c.log != nil {
		errs = append(errs, c.log.Close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	if c.remove != "" {
		errs = append(errs, os.RemoveAll(c.remove))
	}
	return errors.Join(errs...)
}

func (c *cluster) openEphemeral(ctx context.Context, o Options) error {
	var err error
	if c.bin, c.acct, err = locate(ctx, 0, o.Log); err != nil {
		return err
	}
	parent := o.Dir
	if parent == "" {
		parent = os.TempDir()
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if !c.acct.may(ctx, "-w", parent) {
		// The leash, which runs as that user, could not remove anything there.
		parent = "/tmp"
	}
	if c.remove, err = os.MkdirTemp(parent, "llmproxy-pg-"); err != nil {
		return err
	}
	if err := c.acct.own(c.remove); err != nil {
		return err
	}
	c.password = rand.Text()
	return c.place(c.remove, c.remove)
}

func (c *cluster) openDurable(ctx context.Context, o Options) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if c.lock, err = lockDir(ctx, dir); err != nil {
		return err
	}
	major, err := dataVersion(dir)
	if err != nil {
		return err
	}
	if c.bin, c.acct, err = locate(ctx, major, o.Log); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	home, err := c.acct.home(ctx, dir)
	if err != nil {
		return err
	}
	if c.password, err = readPassword(dir, home); err != nil {
		return err
	}
	return c.place(home, dir)
}

// place fills in the paths: data and the password for initdb in home, which the
// account owns, and the log in dir, which it need not be able to enter.
func (c *cluster) place(home, dir string) error {
	c.data = filepath.Join(home, "data")
	c.pwfile = filepath.Join(home, "pwfile")
	var err error
	c.log, err = os.OpenFile(filepath.Join(dir, "postgres.log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.data); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(c.pwfile, []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	return c.acct.own(c.pwfile)
}

// home returns the directory of the account's own that dir/postgres is, or
// leads to.
func (a account) home(ctx context.Context, dir string) (string, error) {
	link := filepath.Join(dir, "postgres")
	home, err := filepath.EvalSymlinks(link)
	if errors.Is(err, os.ErrNotExist) {
		home, err = a.newHome(ctx, dir, link)
	}
	if err != nil {
		return "", err
	}
	if err := a.own(home); err != nil {
		return "", err
	}
	if !a.may(ctx, "-w", home) {
		return "", fmt.Errorf("user %s, which runs postgresql, may not write in %s", a.name, home)
	}
	return home, nil
}

// newHome creates that directory: link itself, or one that link leads to if the
// account may not enter dir.
func (a account) newHome(ctx context.Context, dir, link string) (string, error) {
	// A link may be left over whose end is gone.
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if a.may(ctx, "-x", dir) {
		return link, os.Mkdir(link, 0o700)
	}
	sum := sha256.Sum256([]byte(dir))
	home := filepath.Join(sharedDir, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(sharedDir, 0o755); err != nil {
		return "", err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
	}
	return home, os.Symlink(home, link)
}

// dataVersion returns the major version of PostgreSQL that wrote the data in
// dir, zero if there is none.
func dataVersion(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "postgres", "data", "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("version of the data in %s: %w", dir, err)
	}
	return major, nil
}

// readPassword returns the superuser's password, which it makes up before there
// is any data. Only our own user may read the file. With data in home that it
// does not open, as when someone removed dir but not what is outside it, a new
// password would be useless.
func readPassword(dir, home string) (string, error) {
	path := filepath.Join(dir, "password")
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(home, "data")); err == nil {
		return "", fmt.Errorf("%s is gone, but the data in %s needs it; restore it, or remove %s to start afresh", path, home, home)
	}
	password := rand.Text()
	return password, os.WriteFile(path, []byte(password+"\n"), 0o600)
}
