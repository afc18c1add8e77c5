package dev

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// scripts is the npm project whose scripts play the scenarios.
const scripts = "clients"

// node installs what the lock file of clients names and returns the node to run the
// scripts with. That one comes from the registry too, as the machine's own may be too
// old for some clients; where the registry has none for the machine, its own must do.
var node = sync.OnceValues(func() (string, error) {
	if err := install(scripts); err != nil {
		return "", err
	}
	own, err := filepath.Abs(filepath.Join(scripts, "node_modules", ".bin", "node"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(own); errors.Is(err, fs.ErrNotExist) {
		return exec.LookPath("node")
	}
	return own, nil
})

// install installs what the lock file of an npm project names, once for each
// version of that file.
func install(project string) error {
	lock, err := os.ReadFile(filepath.Join(project, "package-lock.json"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(lock)
	want := hex.EncodeToString(sum[:])
	stamp := filepath.Join(project, "node_modules", ".stamp")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return nil
	}
	cmd := exec.CommandContext(context.Background(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	cmd.Dir = project
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", project, err, out)
	}
	return os.WriteFile(stamp, []byte(want), 0o600)
}

// script makes a client of a script in clients and its arguments.
func script(args ...string) func(*testing.T, seat) []report {
	return func(t *testing.T, at seat) []report {
		t.Helper()
		program, err := node()
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := json.Marshal(at.scenarios)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = scripts
		cmd.Env = []string{ // nothing of the machine's own settings for these clients
			"HOME=" + t.TempDir(), "CLIENT=" + at.client, "PROXY_URL=" + at.url, "KEY=" + at.key,
			"POOR_KEY=" + at.poorKey, "WRONG_KEY=" + wrongKey, "SCENARIOS=" + string(wanted),
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || strings.TrimSpace(stderr.String()) != "" {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
		return reports(t, &stdout)
	}
}

func reports(t *testing.T, lines io.Reader) []report {
	t.Helper()
	var all []report
	for dec := json.NewDecoder(lines); ; {
		var r report
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Errorf("what the client reports: %v", err)
			return all
		}
		all = append(all, r)
	}
}
