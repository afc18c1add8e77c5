package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Secrets finds real keys and other variables. Dir is a directory with a file for
// each, such as a mounted Kubernetes secret; empty: there is none.
type Secrets struct {
	Getenv func(string) string
	Dir    string
}

// Get returns a variable without spaces at its ends: the file of its name in the
// directory, else the file that NAME_FILE names, else the environment variable.
// It is empty when there is none of them. A file that cannot be read or holds
// nothing is an error, since it is likely being replaced.
func (s Secrets) Get(name string) (string, error) {
	if !variable.MatchString(name) {
		return "", fmt.Errorf("%q is not the name of a variable", name[:min(len(name), 100)])
	}
	if s.Dir != "" {
		path := filepath.Join(s.Dir, name)
		v, err := readSecret(path)
		switch {
		case err == nil:
			return v, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if _, err := os.Stat(s.Dir); err != nil {
			return "", fmt.Errorf("the directory of secrets: %w", err)
		}
	}
	if path := strings.TrimSpace(s.Getenv(name + "_FILE")); path != "" {
		v, err := readSecret(path)
		switch {
		case err == nil:
			return v, nil
		case !filepath.IsAbs(path): // it may be the secret itself, put in the wrong place
			return "", fmt.Errorf("%s_FILE: the file that it names: %w", name, err)
		}
		return "", fmt.Errorf("%s_FILE: %s: %w", name, path, err)
	}
	return strings.TrimSpace(s.Getenv(name)), nil
}

// readSecret reads a file without spaces at its ends. Its error does not name it.
func readSecret(path string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator's own file; a variable's name has no separator
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return "", pathErr.Err
	}
	if err != nil {
		return "", err
	}
	v := strings.TrimSpace(string(text))
	if v == "" {
		return "", errors.New("the file is empty")
	}
	return v, nil
}
