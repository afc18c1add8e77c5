package dev

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

// container is what docker-compose.yml says of one service.
type container struct {
	Image       string   `yaml:"image"`
	User        string   `yaml:"user"`
	ReadOnly    bool     `yaml:"read_only"`
	Tmpfs       []string `yaml:"tmpfs"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Restart     string   `yaml:"restart"`
	Profiles    []string `yaml:"profiles"`
	Ports       []string `yaml:"ports"`
	Command     []string `yaml:"command"`
	Build       struct {
		Context, Dockerfile string
		Args                map[string]string
	} `yaml:"build"`
	Environment map[string]string `yaml:"environment"`
	StopGrace   time.Duration     `yaml:"stop_grace_period"`
	HealthCheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func containers(t *testing.T) map[string]container {
	t.Helper()
	var file struct {
		Services map[string]container `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// simulated are the values of deploy/compose.sim.env.
func simulated(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for line := range strings.Lines(read(t, "deploy/compose.sim.env")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			values[name] = value
		}
	}
	return values
}

// demanded are the variables without which nothing may start.
var demanded = []string{"ANTHROPIC_API_KEY", "LLM_PROXY_MASTER_KEY", "LLM_PROXY_SERVICE_TOKEN", "POSTGRES_PASSWORD"}

// reference is ${NAME:-default} or ${NAME:?message}; a $ that is neither has no
// name.
var reference = regexp.MustCompile(`\$(?:\{([A-Z][A-Z0-9_]*):([-?])([^{}]*)\})?`)

// filled is the environment with the values filled in, as docker compose does.
func (c container) filled(values map[string]string) (map[string]string, error) {
	env := map[string]string{}
	var faults []error
	for name, text := range c.Environment {
		env[name] = reference.ReplaceAllStringFunc(text, func(ref string) string {
			m := reference.FindStringSubmatch(ref)
			switch {
			case m[1] == "":
				faults = append(faults, fmt.Errorf("%s: %q has a $ that is not understood here", name, text))
			case values[m[1]] != "":
				return values[m[1]]
			case m[2] == "?":
				faults = append(faults, fmt.Errorf("%s: %s", m[1], m[3]))
			}
			return m[3]
		})
	}
	return env, errors.Join(faults...)
}

// loaded is what a service's own LoadConfig made of its environment.
type loaded struct {
	serve    serve.Config
	upstream []string // URL and key of every vendor that it calls
}

var loaders = map[string]func(getenv func(string) string) (loaded, error){
	"keysvc": func(getenv func(string) string) (loaded, error) {
		c, err := keysvc.LoadConfig(getenv)
		return loaded{serve: c.Serve}, err
	},
	"proxysvc": func(getenv func(string) string) (loaded, error) {
		c, err := proxysvc.LoadConfig(getenv)
		l := loaded{serve: c.Serve}
		for _, d := range c.Routing.Deployments {
			l.upstream = append(l.upstream, d.APIBase+" "+d.APIKey.Reveal())
		}
		l.upstream = slices.Compact(l.upstream)
		return l, err
	},
	"billingsvc": func(getenv func(string) string) (loaded, error) {
		c, err := billingsvc.LoadConfig(getenv)
		return loaded{serve: c.Serve}, err
	},
	"outboxsvc": func(getenv func(string) string) (loaded, error) {
		c, err := outboxsvc.LoadConfig(getenv)
		return loaded{serve: c.Serve, upstream: []string{c.Autumn.URL + " " + c.Autumn.Key.Reveal()}}, err
	},
}

// load runs a service's LoadConfig on its container's environment, and fails on
// a variable that the service does not read.
func load(t *testing.T, name string, c container, values map[string]string) loaded {
	t.Helper()
	env, err := c.filled(values)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	asked := map[string]bool{}
	l, err := loaders[name](func(v string) string { asked[v] = true; return env[v] })
	if err != nil {
		t.Errorf("%s would not start: %v", name, err)
	}
	for v := range env {
		if !asked[v] {
			t.Errorf("%s does not read %s", name, v)
		}
	}
	return l
}

func TestTheServicesStartOnTheEnvironmentOfCompose(t *testing.T) {
	t.Parallel()
	sim := simulated(t)
	least := map[string]string{}
	for _, name := range demanded {
		least[name] = sim[name]
	}
	for _, row := range []struct {
		name   string
		values map[string]string
		want   map[string][]string // upstreams
	}{
		{"with the simulators", sim, map[string][]string{
			"proxysvc":  {"http://sim-anthropic:8200 " + sim["ANTHROPIC_API_KEY"]},
			"outboxsvc": {"http://sim-autumn:8200 " + sim["AUTUMN_API_KEY"]},
		}},
		{"with what is demanded and no more", least, map[string][]string{
			"proxysvc":  {"https://api.anthropic.com " + sim["ANTHROPIC_API_KEY"]},
			"outboxsvc": {"https://api.useautumn.com "},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for name := range loaders {
				got := load(t, name, containers(t)[name], row.values).upstream
				if diff := cmp.Diff(row.want[name], got); diff != "" {
					t.Errorf("%s calls (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

func TestComposeDemandsTheSecrets(t *testing.T) {
	t.Parallel()
	for _, missing := range demanded {
		values := simulated(t)
		delete(values, missing)
		var faults []error
		for _, c := range containers(t) {
			_, err := c.filled(values)
			faults = append(faults, err)
		}
		if err := errors.Join(faults...); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v, want a fault that names it", missing, err)
		}
	}
}

// portOf is what stands behind the last colon.
func portOf(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }

// TestTheAddressesOfComposeFitTogether holds ports, targets, health checks and
// grace periods against what each service does by itself.
func TestTheAddressesOfComposeFitTogether(t *testing.T) {
	t.Parallel()
	all, sim := containers(t), simulated(t)
	grpc := map[string]string{} // host:port of each service
	for name := range loaders {
		cfg := load(t, name, all[name], sim).serve
		grpc[name] = name + ":" + portOf(cfg.GRPCListen)
		want := []string{"CMD", "/healthcheck", "http://127.0.0.1:" + portOf(cfg.HTTPListen) + "/readyz"}
		if diff := cmp.Diff(want, all[name].HealthCheck.Test); diff != "" {
			t.Errorf("%s: health check (-want +got):\n%s", name, diff)
		}
		if grace := all[name].StopGrace; grace < cfg.Drain+cfg.DrainWait {
			t.Errorf("%s is killed after %s and drains for up to %s", name, grace, cfg.Drain)
		}
		if name == "proxysvc" && portOf(cfg.HTTPListen) != "4000" {
			t.Errorf("proxysvc listens on %s, want port 4000", cfg.HTTPListen)
		}
	}
	for name, c := range all {
		for v, target := range c.Environment {
			if other, ok := strings.CutSuffix(v, "_TARGET"); ok && target != grpc[strings.ToLower(other)] {
				t.Errorf("%s: %s is %s, want %s", name, v, target, grpc[strings.ToLower(other)])
			}
		}
		if published := len(c.Ports) > 0; published != (name == "proxysvc") {
			t.Errorf("%s: published ports are %q; the proxy's is the one public face", name, c.Ports)
		}
	}
	if diff := cmp.Diff([]string{"4000:4000"}, all["proxysvc"].Ports); diff != "" {
		t.Errorf("published ports (-want +got):\n%s", diff)
	}
	for name, base := range map[string]string{"sim-anthropic": sim["ANTHROPIC_API_BASE"], "sim-autumn": sim["AUTUMN_API_URL"]} {
		listens := portOf(all[name].Environment["SIM_LISTEN"])
		if want := "http://" + name + ":" + listens; base != want {
			t.Errorf("compose.sim.env says %s, want %s", base, want)
		}
		if diff := cmp.Diff([]string{"CMD", "/healthcheck", "http://127.0.0.1:" + listens + "/healthz"}, all[name].HealthCheck.Test); diff != "" {
			t.Errorf("%s: health check (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheServicesReachTheDatabaseOfCompose(t *testing.T) {
	t.Parallel()
	all, sim := containers(t), simulated(t)
	postgres, err := all["postgres"].filled(sim)
	if err != nil {
		t.Fatal(err)
	}
	want := url.URL{
		Scheme: "postgres", Host: "postgres:5432", Path: "/" + postgres["POSTGRES_DB"], RawQuery: "sslmode=disable",
		User: url.UserPassword(postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"]),
	}
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc"} {
		env, err := all[name].filled(sim)
		if err != nil {
			t.Fatal(err)
		}
		if env["DATABASE_URL"] != want.String() {
			t.Errorf("%s: DATABASE_URL is %s, want %s", name, env["DATABASE_URL"], want.String())
		}
	}
	// -h: during initdb Postgres answers on its socket, and only there.
	check := []string{"CMD", "pg_isready", "-h", "127.0.0.1", "-U", postgres["POSTGRES_USER"], "-d", postgres["POSTGRES_DB"]}
	if diff := cmp.Diff(check, all["postgres"].HealthCheck.Test); diff != "" {
		t.Errorf("postgres: health check (-want +got):\n%s", diff)
	}
}

// TestEveryContainerIsConfined checks what keeps a container from doing harm.
func TestEveryContainerIsConfined(t *testing.T) {
	t.Parallel()
	all := containers(t)
	programs := map[string]string{
		"keysvc": "keysvc", "proxysvc": "proxysvc", "billingsvc": "billingsvc", "outboxsvc": "outboxsvc",
		"sim-anthropic": "sim", "sim-autumn": "sim",
	}
	if got, want := slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(programs)); !slices.Equal(got, slices.Sorted(slices.Values(append(want, "postgres")))) {
		t.Errorf("the containers are %q, want postgres and %q", got, want)
	}
	for name, program := range programs {
		c := all[name]
		want := container{
			User: "65532:65532", ReadOnly: true, Tmpfs: []string{"/tmp"}, CapDrop: []string{"ALL"},
			SecurityOpt: []string{"no-new-privileges:true"}, Restart: "unless-stopped",
		}
		want.Build.Context, want.Build.Dockerfile, want.Build.Args = ".", "deploy/Dockerfile", map[string]string{"SERVICE": program}
		if vendor, ok := strings.CutPrefix(name, "sim-"); ok {
			want.Profiles, want.Command = []string{"sim"}, []string{vendor}
		}
		got := c
		got.Environment, got.Ports, got.StopGrace, got.DependsOn, got.HealthCheck.Test = nil, nil, 0, nil, nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for other, d := range c.DependsOn {
			if d.Condition != "service_healthy" || len(all[other].HealthCheck.Test) == 0 || len(all[other].Profiles) > 0 {
				t.Errorf("%s waits for %s to be %q, want service_healthy of one that has a check and always runs", name, other, d.Condition)
			}
		}
	}
}
