package pglocal

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that PostgreSQL runs as. Its programs refuse to run as
// root, so root lends them another one.
type account struct {
	name string
	uid  int
	gid  int
	cred *syscall.Credential // nil: as ourselves
}

// serverAccount returns the user postgres, else nobody, if we are root.
func serverAccount() (account, error) {
	if os.Getuid() != 0 {
		return account{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	u, err := osuser.Lookup("postgres")
	if err != nil {
		u, err = osuser.Lookup("nobody")
	}
	if err != nil {
		return account{}, fmt.Errorf("find a user other than root to run postgresql: %w", err)
	}
	// macOS prints nobody as -2.
	uid, err := strconv.ParseInt(u.Uid, 10, 64)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseInt(u.Gid, 10, 64)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return account{name: u.Username, uid: int(cred.Uid), gid: int(cred.Gid), cred: cred}, nil
}

// command prepares a program to run as the account. It sees none of our
// environment, which may hold secrets and settings of libpq.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/" // the only directory that everybody may enter
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.cred}
	return cmd
}

// may reports whether the account passes a test of test(1), such as -x, on dir.
// Asking the system also covers ACLs and mount options.
func (a account) may(ctx context.Context, test, dir string) bool {
	return a.command(ctx, "/bin/sh", "-c", `test "$1" "$2"`, "sh", test, dir).Run() == nil
}

// own gives a tree to the account, unless it owns the root of it already.
func (a account) own(root string) error {
	if a.cred == nil {
		return nil
	}
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == a.uid {
		return nil
	}
	// The root last, so that an interrupted walk is taken up again.
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
	if err != nil {
		return err
	}
	return os.Chown(root, a.uid, a.gid)
}
