package pglocal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// installer is a package manager and how it installs PostgreSQL's server.
type installer struct {
	program string
	root    bool // works for root only
	steps   [][]string
}

var errNoInstaller = errors.New("no package manager that this user may use")

// installers are tried in this order; the first that is present decides.
func installers() []installer {
	list := []installer{
		{"apt-get", true, [][]string{
			{"update"},
			{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "postgresql"},
		}},
		{"dnf", true, [][]string{{"install", "-y", "postgresql-server"}}},
		{"apk", true, [][]string{{"add", "--no-cache", "postgresql"}}},
	}
	if runtime.GOOS == "darwin" {
		list = []installer{{"brew", false, [][]string{{"install", "postgresql@17"}}}}
	}
	return list
}

const installTimeout = 10 * time.Minute

// install installs PostgreSQL with the system's package manager.
func install(ctx context.Context, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	for _, i := range installers() {
		// Homebrew is the one that refuses root.
		if i.root != (os.Getuid() == 0) {
			continue
		}
		path, err := exec.LookPath(i.program)
		if err != nil {
			continue
		}
		fmt.Fprintln(progress, "installing postgresql with", i.program)
		if i.program == "apt-get" {
			if err := forbidMainCluster("/etc/postgresql-common"); err != nil {
				return err
			}
		}
		return i.run(ctx, path)
	}
	return errNoInstaller
}

func (i installer) run(ctx context.Context, path string) error {
	for n, step := range i.steps {
		cmd := exec.CommandContext(ctx, path, step...)
		// Keep the file of forbidMainCluster, and ask nothing.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "UCF_FORCE_CONFFOLD=1")
		out, err := cmd.CombinedOutput()
		// Package lists need not be fresh, so only the last step has to succeed.
		if err != nil && n == len(i.steps)-1 {
			lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
			last := bytes.Join(lines[max(0, len(lines)-5):], []byte("\n"))
			return fmt.Errorf("%s %s: %w\n%s", i.program, strings.Join(step, " "), err, last)
		}
	}
	return nil
}

// forbidMainCluster keeps Debian's package from creating and starting a cluster
// of its own, unless the machine's owner has said what it shall do.
func forbidMainCluster(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "createcluster.conf"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString("create_main_cluster = false\n")
	return errors.Join(err, f.Close())
}
