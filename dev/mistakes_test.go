package dev

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mistakes is how many mistakes of the system that this one replaces are known.
const mistakes = 25

// Mistake 25 was that none of the others was tested: each has a test that is named
// after its number.
func TestMistake25EveryMistakeHasATest(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`(?m)^func TestMistake(\d\d)[A-Z]`)
	tested := map[string]bool{}
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		for _, found := range name.FindAllSubmatch(text, -1) {
			tested[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= mistakes; n++ {
		if !tested[fmt.Sprintf("%02d", n)] {
			t.Errorf("mistake %d has no test", n)
		}
	}
}
