package credential

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

func TestASecretInAFileMayComeAndChange(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	s := Source{Value: secret.New("from the environment"), File: file}
	if !s.Current().Empty() {
		t.Error("there is a secret before there is a file")
	}
	for _, text := range []string{"first\n", "second"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"first\n": "first", "second": "second"}[text]
		if got := s.Current(); !got.Equal(want) {
			t.Errorf("the secret is not %q after it was written", want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if !s.Current().Empty() {
		t.Error("there is a secret after the file has gone")
	}
}

func TestWithoutAFileTheValueHolds(t *testing.T) {
	t.Parallel()
	if !(Source{Value: secret.New("v")}).Current().Equal("v") || !(Source{}).Current().Empty() {
		t.Error("the value is not what was given")
	}
}
