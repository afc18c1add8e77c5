package dev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const sdkFolder = "../sdk/typescript"

// typeScriptSDK compiles the SDK once and returns the node to run it with.
func typeScriptSDK(t *testing.T) string {
	t.Helper()
	program, err := compiledSDK()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var compiledSDK = sync.OnceValues(func() (string, error) {
	program, err := node()
	if err != nil {
		return "", err
	}
	if err := install(sdkFolder); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(sdkFolder, "dist")); err != nil { // tests that are no more
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), program, "node_modules/typescript/bin/tsc")
	cmd.Dir = sdkFolder
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tsc in sdk/typescript: %w\n%s", err, out)
	}
	return program, nil
})
