package dev

import (
	"debug/elf"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

type compose struct {
	Services map[string]composeService `yaml:"services"`
}

type composeService struct {
	User     string   `yaml:"user"`
	ReadOnly bool     `yaml:"read_only"`
	CapDrop  []string `yaml:"cap_drop"`
	Profiles []string `yaml:"profiles"`
	Ports    []string `yaml:"ports"`
	Command  []string `yaml:"command"`
	Build    struct {
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Environment     map[string]string `yaml:"environment"`
	StopGracePeriod string            `yaml:"stop_grace_period"`
	HealthCheck     struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

// variable is ${NAME}, ${NAME:-default} or ${NAME:?message}.
var variable = regexp.MustCompile(`\$\{([A-Z_]+)(?::([-?])([^}]*))?\}`)

// loadCompose reads docker-compose.yml with the variables of compose.sim.env
// filled in.
func loadCompose(t *testing.T) compose {
	t.Helper()
	values := map[string]string{}
	env, err := os.ReadFile("../deploy/compose.sim.env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(env)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			values[name] = value
		}
	}
	text, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	filled := variable.ReplaceAllStringFunc(string(text), func(ref string) string {
		m := variable.FindStringSubmatch(ref)
		if v, ok := values[m[1]]; ok {
			return v
		}
		if m[2] == "?" {
			t.Errorf("compose.sim.env does not set %s, which is needed", m[1])
		}
		return m[3]
	})
	var c compose
	if err := yaml.Unmarshal([]byte(filled), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// configurations load each service's own configuration.
var configurations = map[string]func(func(string) string) (serve.Config, error){
	"keysvc": func(g func(string) string) (serve.Config, error) { c, err := keysvc.LoadConfig(g); return c.Serve, err },
	"proxysvc": func(g func(string) string) (serve.Config, error) {
		c, err := proxysvc.LoadConfig(g)
		return c.Serve, err
	},
	"billingsvc": func(g func(string) string) (serve.Config, error) {
		c, err := billingsvc.LoadConfig(g)
		return c.Serve, err
	},
	"outboxsvc": func(g func(string) string) (serve.Config, error) {
		c, err := outboxsvc.LoadConfig(g)
		return c.Serve, err
	},
}

// TestComposeFitsTheServicesConfiguration holds each service's environment, ports,
// health check and grace period against what the service itself would do with
// them.
func TestComposeFitsTheServicesConfiguration(t *testing.T) {
	t.Parallel()
	c := loadCompose(t)
	grpcPort := map[string]string{}
	for name, load := range configurations {
		service, ok := c.Services[name]
		if !ok {
			t.Errorf("docker-compose.yml has no %s", name)
			continue
		}
		read := map[string]bool{}
		cfg, err := load(func(v string) string { read[v] = true; return service.Environment[v] })
		if err != nil {
			t.Errorf("%s would not start: %v", name, err)
			continue
		}
		for v := range service.Environment {
			if !read[v] {
				t.Errorf("%s does not read %s", name, v)
			}
		}
		httpPort := cfg.HTTPListen[strings.LastIndex(cfg.HTTPListen, ":"):]
		grpcPort[name] = cfg.GRPCListen[strings.LastIndex(cfg.GRPCListen, ":"):]
		want := []string{"CMD", "/healthcheck", "http://127.0.0.1" + httpPort + "/readyz"}
		if !slices.Equal(service.HealthCheck.Test, want) {
			t.Errorf("%s: health check %q, want %q", name, service.HealthCheck.Test, want)
		}
		grace, err := time.ParseDuration(service.StopGracePeriod)
		if err != nil || grace <= cfg.Drain {
			t.Errorf("%s is killed after %s, and drains for up to %s", name, service.StopGracePeriod, cfg.Drain)
		}
	}
	for name := range configurations {
		for v, target := range c.Services[name].Environment {
			if other, ok := strings.CutSuffix(v, "_TARGET"); ok {
				if other = strings.ToLower(other); target != other+grpcPort[other] {
					t.Errorf("%s: %s is %s, and %s listens on %s", name, v, target, other, grpcPort[other])
				}
			}
		}
	}
	if got := c.Services["proxysvc"].Ports; !slices.Equal(got, []string{"4000:4000"}) {
		t.Errorf("proxysvc's ports are %v", got)
	}
}

// TestEveryContainerIsConfined checks what keeps a container from doing harm.
func TestEveryContainerIsConfined(t *testing.T) {
	t.Parallel()
	c := loadCompose(t)
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc", "outboxsvc", "sim-anthropic", "sim-autumn"} {
		s, ok := c.Services[name]
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		if s.User != "65532:65532" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: user %q, read-only %v, capabilities dropped %v", name, s.User, s.ReadOnly, s.CapDrop)
		}
		if s.Build.Dockerfile != "deploy/Dockerfile" || len(s.HealthCheck.Test) != 3 {
			t.Errorf("%s: built from %q, health check %q", name, s.Build.Dockerfile, s.HealthCheck.Test)
		}
		if strings.HasPrefix(name, "sim-") && (!slices.Equal(s.Profiles, []string{"sim"}) || !slices.Equal(s.Command, []string{strings.TrimPrefix(name, "sim-")})) {
			t.Errorf("%s: profiles %v, command %v", name, s.Profiles, s.Command)
		}
		for other, d := range s.DependsOn {
			if d.Condition != "service_healthy" || len(c.Services[other].HealthCheck.Test) == 0 {
				t.Errorf("%s waits for %s to be %q", name, other, d.Condition)
			}
		}
	}
	if len(c.Services["postgres"].HealthCheck.Test) == 0 {
		t.Error("postgres has no health check")
	}
}

// TestTheDockerfileBuilds runs the Dockerfile's own build command for every
// program, on nothing but the folders that it copies.
func TestTheDockerfileBuilds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile := string(text)
	_, final, ok := strings.Cut(dockerfile, "FROM scratch")
	for _, want := range []string{"USER 65532:65532", `ENTRYPOINT ["/service"]`, "/healthcheck", "ca-certificates.crt"} {
		if !ok || !strings.Contains(final, want) {
			t.Errorf("the final stage lacks %s", want)
		}
	}
	src := t.TempDir()
	for _, m := range regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`).FindAllStringSubmatch(dockerfile, -1) {
		if err := os.CopyFS(filepath.Join(src, m[2]), os.DirFS(filepath.Join("..", m[1]))); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOWORK=off", "GOOS=linux")
	command := regexp.MustCompile(`(?s)RUN --mount[^\n]*\\\n(.*?)\n\n`).FindStringSubmatch(dockerfile)
	if command == nil {
		t.Fatal("there is no build command")
	}
	out := t.TempDir()
	script := strings.NewReplacer("\\\n", "\n", "/out/", out+"/").Replace(command[1])
	services := map[string]bool{}
	for _, s := range loadCompose(t).Services {
		if name := s.Build.Args["SERVICE"]; name != "" {
			services[name] = true
		}
	}
	if len(services) != 5 {
		t.Errorf("docker-compose.yml builds %v, want five programs", services)
	}
	for name := range services {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(script, "&& ", ""))
		cmd.Dir, cmd.Env = src, append(env, "SERVICE="+name)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
		for _, program := range []string{"service", "healthcheck"} {
			isStatic(t, filepath.Join(out, program))
		}
	}
}

// isStatic checks that a program needs no library and no loader, which scratch
// does not have.
func isStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s needs a loader", filepath.Base(path))
		}
	}
}

func TestTheHealthCheckTellsByItsExitCode(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "healthcheck")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../deploy/healthcheck/main.go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	for path, want := range map[string]int{"/readyz": 0, "/down": 1} {
		cmd := exec.CommandContext(t.Context(), program, server.URL+path)
		cmd.Run() //nolint:errcheck // the exit code is looked at
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("healthcheck of %s exits with %d, want %d", path, got, want)
		}
	}
}
