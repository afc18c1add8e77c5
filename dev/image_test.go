package dev

import (
	"bufio"
	"context"
	"debug/elf"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// dockerfile is deploy/Dockerfile, one instruction a string.
func dockerfile(t *testing.T) []string {
	t.Helper()
	var out []string
	text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(read(t, "deploy/Dockerfile"), "")
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func TestTheImageHoldsNothingToAttack(t *testing.T) {
	t.Parallel()
	all := dockerfile(t)
	final := slices.IndexFunc(all, func(s string) bool { return s == "FROM scratch" })
	if final < 0 {
		t.Fatalf("no stage is FROM scratch: %q", all)
	}
	if diff := cmp.Diff([]string{
		"FROM scratch",
		"COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt",
		"COPY --from=build /out/service /service",
		"COPY --from=build /out/healthcheck /healthcheck",
		"COPY --from=build --chown=65532:65532 /out/journal /journal",
		"USER 65532:65532",
		`ENTRYPOINT ["/service"]`,
	}, all[final:]); diff != "" {
		t.Errorf("the final stage (-want +got):\n%s", diff)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.work"))
	if want := "FROM golang:" + version[1] + " AS build"; all[0] != want {
		t.Errorf("the first stage is %q, want %q as in go.work", all[0], want)
	}
}

// ignored tells whether .dockerignore keeps a file out of the build. It knows
// the patterns that are used there; as in Docker, the last that fits decides.
func ignored(patterns []string, file string) bool {
	out := false
	for _, p := range patterns {
		p, again := strings.CutPrefix(p, "!")
		base, anywhere := strings.CutPrefix(p, "**/")
		for at := file; at != "."; at = path.Dir(at) {
			name := at
			if anywhere {
				p, name = base, path.Base(at)
			}
			if ok, err := path.Match(p, name); ok && err == nil {
				out = !again
			}
		}
	}
	return out
}

// buildContext makes what `COPY` finds in the builder: of the folders that the
// Dockerfile names, the files that .dockerignore leaves.
func buildContext(t *testing.T) string {
	t.Helper()
	var patterns []string
	for line := range strings.Lines(read(t, ".dockerignore")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	for _, secret := range []string{".env", ".git/config", ".llmproxy/master.key", "deploy/compose.sim.env"} {
		if !ignored(patterns, secret) {
			t.Errorf(".dockerignore lets %s into the build", secret)
		}
	}
	src := t.TempDir()
	repo := os.DirFS("..")
	for _, line := range dockerfile(t) {
		f := strings.Fields(line)
		if f[0] != "COPY" || strings.HasPrefix(f[1], "--") {
			continue
		}
		if len(f) != 3 || f[1] != f[2] {
			t.Fatalf("%q: only COPY NAME NAME is understood here", line)
		}
		copied := 0
		err := fs.WalkDir(repo, f[1], func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || ignored(patterns, name) {
				return err
			}
			copied++
			text, err := fs.ReadFile(repo, name)
			if err != nil {
				return err
			}
			to := filepath.Join(src, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, text, 0o644)
		})
		if err != nil || copied == 0 {
			t.Fatalf("%s: %d files, %v", line, copied, err)
		}
	}
	return src
}

// build runs the Dockerfile's own RUN instruction in src, and returns the folder
// that stands for /out.
func build(t *testing.T, src, service, goos string) string {
	t.Helper()
	out := t.TempDir()
	env := append(os.Environ(), "GOOS="+goos, "SERVICE="+service)
	var script string
	for _, line := range dockerfile(t) {
		if vars, ok := strings.CutPrefix(line, "ENV "); ok {
			env = append(env, strings.Fields(vars)...)
		}
		if command, ok := strings.CutPrefix(line, "RUN "); ok {
			script += strings.ReplaceAll(regexp.MustCompile(`--mount=\S+\s+`).ReplaceAllString(command, ""), "/out/", out+"/") + "\n"
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir, cmd.Env = src, env
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", service, err, text)
	}
	return out
}

// TestTheDockerfileBuildsEveryProgram builds each on nothing but what the build
// context holds, and runs the simulators as compose does.
func TestTheDockerfileBuildsEveryProgram(t *testing.T) {
	t.Parallel()
	src := buildContext(t)
	for _, service := range []string{"keysvc", "proxysvc", "billingsvc", "outboxsvc", "sim"} {
		out := build(t, src, service, "linux")
		isStatic(t, filepath.Join(out, "service"))
		isStatic(t, filepath.Join(out, "healthcheck"))
	}
	here := build(t, src, "sim", runtime.GOOS)
	runSimulator(t, here, "sim-anthropic")
	runSimulator(t, here, "sim-autumn")
}

// isStatic checks that a program needs no library and no loader, which scratch
// does not have.
func isStatic(t *testing.T, program string) {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil || len(libraries) > 0 {
		t.Errorf("%s needs libraries: %q, %v", filepath.Base(program), libraries, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s needs a loader", filepath.Base(program))
		}
	}
}

// runSimulator starts the container's command on a port of this machine, asks
// for its health and ends it.
func runSimulator(t *testing.T, out, name string) {
	t.Helper()
	c := containers(t)[name]
	env, err := c.filled(simulated(t))
	if err != nil {
		t.Fatal(err)
	}
	env["SIM_LISTEN"] = "127.0.0.1:0"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // so that what hangs is ended, and fails
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(out, "service"), c.Command...)
	cmd.Env = []string{}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n') // it says where it serves
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	checked, err := url.Parse(c.HealthCheck.Test[2])
	if err != nil {
		t.Fatal(err)
	}
	checked.Host = "127.0.0.1:" + portOf(strings.TrimSpace(line))
	if text, err := exec.CommandContext(t.Context(), filepath.Join(out, "healthcheck"), checked.String()).CombinedOutput(); err != nil {
		t.Errorf("%s is not healthy: %v %s", name, err, text)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s after SIGTERM: %v, want exit 0", name, err)
	}
}

func TestTheHealthCheckTellsByItsExitCode(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "healthcheck")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./deploy/healthcheck/main.go")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/silent":
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, row := range []struct {
		name string
		args []string
		want int
	}{
		{"200", []string{server.URL + "/readyz"}, 0},
		{"503", []string{server.URL + "/down"}, 1},
		{"no answer in time", []string{server.URL + "/silent"}, 1},
		{"nobody listens", []string{closed.URL}, 1},
		{"no URL", nil, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), program, row.args...)
			text, err := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != row.want {
				t.Errorf("exit code %d, want %d (%v)\n%s", got, row.want, err, text)
			}
		})
	}
}
