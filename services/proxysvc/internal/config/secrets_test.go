package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhereASecretComesFrom(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "IN_DIR"), "  from the directory\n")
	write(t, filepath.Join(dir, "EMPTY"), "\n")
	if err := os.Mkdir(filepath.Join(dir, "A_DIRECTORY"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(other, "file")
	write(t, file, "from a file\n")
	env := map[string]string{
		"IN_DIR": "no", "IN_DIR_FILE": file, "IN_FILE": "no", "IN_FILE_FILE": file, "IN_ENV": " from the environment ",
		"LOST_FILE": filepath.Join(other, "lost"), "LOST": canary, "SWAPPED_FILE": canary, "EMPTY": canary, "A_DIRECTORY": canary,
	}
	s := Secrets{Getenv: func(name string) string { return env[name] }, Dir: dir}
	tests := []struct{ name, variable, want, fault string }{
		{"the directory's file comes first", "IN_DIR", "from the directory", ""},
		{"then the file that is named", "IN_FILE", "from a file", ""},
		{"then the variable", "IN_ENV", "from the environment", ""},
		{"or there is none", "NOWHERE", "", ""},
		{"a file that is lost names variable and file", "LOST", "", "LOST_FILE: " + filepath.Join(other, "lost") + ": no such file"},
		{"the secret itself in the place of its file is not shown", "SWAPPED", "", "SWAPPED_FILE: the file that it names: no such file"},
		{"an empty file is no secret", "EMPTY", "", filepath.Join(dir, "EMPTY") + ": the file is empty"},
		{"nor is a directory", "A_DIRECTORY", "", filepath.Join(dir, "A_DIRECTORY")},
		{"a name is no path", "../" + filepath.Base(other) + "/file", "", "is not the name of a variable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := s.Get(tt.variable)
			if got != tt.want || (err != nil) != (tt.fault != "") {
				t.Fatalf("Get(%s) = %q, %v, want %q", tt.variable, got, err, tt.want)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), canary)) {
				t.Errorf("Get(%s): %v, want an error with %q", tt.variable, err, tt.fault)
			}
		})
	}
}

func TestADirectoryOfSecretsThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	s := Secrets{Getenv: func(name string) string { return map[string]string{"K": canary}[name] }, Dir: filepath.Join(t.TempDir(), "not")}
	if got, err := s.Get("K"); err == nil || got != "" {
		t.Errorf("Get = %q, %v, want an error: the environment's key may be an old one", got, err)
	}
	s.Dir = ""
	if got, err := s.Get("K"); err != nil || got != canary {
		t.Errorf("Get without a directory = %q, %v", got, err)
	}
}
