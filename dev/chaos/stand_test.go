package chaos

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const (
	masterKey    = "sk-master-chaos-0123456789"
	serviceToken = "service-chaos-0123456789"
	realKey      = "sk-ant-real-chaos-0123456789"
	autumnKey    = "am_sk_test_chaos_0123456789"
)

// stand is the suite of one seed.
type stand struct {
	t        *testing.T
	plan     plan
	postgres *postgres
	through  func(addr string) string // the database's URL
	upstream *upstream
	autumn   *autumn.Server
	links    map[string]*link
	services map[string]*service
	keepers  sync.WaitGroup

	keyIDs, secrets []string // by key of the plan
	outages         outages

	keys    keysv1.KeyServiceClient
	teams   keysv1.TeamServiceClient
	spend   []proxyv1.SpendServiceClient // by replica
	billing billingv1.BillingServiceClient
	outbox  outboxv1.OutboxServiceClient
}

// newStand starts everything and waits until it is ready.
func newStand(t *testing.T, pg *postgres, binaries string, p plan) *stand {
	t.Helper()
	s := &stand{
		t: t, plan: p, postgres: pg, through: pg.database(t, fmt.Sprintf("chaos_%d", p.seed)),
		upstream: newUpstream(), autumn: autumn.New(autumn.Options{SecretKey: autumnKey, DefaultGrant: 10_000}),
		links: map[string]*link{}, services: map[string]*service{},
	}
	anthropic, sink := httptest.NewServer(s.upstream), httptest.NewServer(s.autumn)
	t.Cleanup(anthropic.Close)
	t.Cleanup(sink.Close)
	s.link("anthropic", anthropic.Listener.Addr().String())
	s.link("autumn", sink.Listener.Addr().String())
	s.make(binaries)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	for _, svc := range s.services {
		s.keepers.Go(func() { svc.keep(ctx) })
	}
	t.Cleanup(func() { stop(); s.keepers.Wait(); s.autopsy() })
	s.dial()
	s.poll(t.Context(), "everything is ready", s.allReady)
	s.issue()
	return s
}

func (s *stand) link(name, target string) *link {
	l := newLink(s.t, target)
	s.links[name] = l
	return l
}

// make prepares the services: each with a link of its own to Postgres.
func (s *stand) make(binaries string) {
	add := func(name string, env ...string) *service {
		svc := newService(s.t, binaries, name)
		svc.env = append(svc.env, env...)
		s.services[name] = svc
		return svc
	}
	database := func(name string) string {
		return "DATABASE_URL=" + s.through(s.link("postgres of "+name, s.postgres.addr()).addr)
	}
	keysvc := add("keysvc", database("keysvc"))
	var targets []string
	journals := s.t.TempDir()
	for n := range replicas {
		name := fmt.Sprintf("proxysvc-%d", n)
		svc := add(name, database(name), "KEYSVC_TARGET="+keysvc.grpc,
			"ANTHROPIC_API_KEY="+realKey, "ANTHROPIC_API_BASE=http://"+s.links["anthropic"].addr,
			"PROXYSVC_ABANDONED_HOLD=15s", "PROXYSVC_BUDGET_SLICE="+[]string{"300ms", "1m"}[n%2], "PROXYSVC_LOG_HEARTBEAT="+logHeartbeat.String(), "PROXYSVC_LOG_SILENCE="+logSilence.String(),
			"PROXYSVC_PROGRESS_INTERVAL=200ms", "PROXYSVC_SETTLE_TIMEOUT="+settleTimeout.String(), "PROXYSVC_DRAIN=2s", "PROXYSVC_JOURNAL_DIR="+filepath.Join(journals, name))
		targets = append(targets, svc.grpc)
	}
	billing := add("billingsvc", database("billingsvc"), "PROXYSVC_TARGET="+strings.Join(targets, ","), "KEYSVC_TARGET="+keysvc.grpc,
		"BILLING_SYNC_INTERVAL=100ms", "BILLINGSVC_DRAIN=2s")
	add("outboxsvc", "BILLINGSVC_TARGET="+billing.grpc, "OUTBOX_INTERVAL=100ms", "OUTBOXSVC_DRAIN=2s",
		"AUTUMN_API_KEY="+autumnKey, "AUTUMN_API_URL=http://"+s.links["autumn"].addr)
}

func (s *stand) dial() {
	conn := func(name string) *grpc.ClientConn {
		c, err := serve.Caller{Token: secret.New(masterKey)}.Dial(s.services[name].grpc)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { c.Close() })
		return c
	}
	keysvc := conn("keysvc")
	s.keys, s.teams = keysv1.NewKeyServiceClient(keysvc), keysv1.NewTeamServiceClient(keysvc)
	for n := range replicas {
		s.spend = append(s.spend, proxyv1.NewSpendServiceClient(conn(fmt.Sprintf("proxysvc-%d", n))))
	}
	s.billing = billingv1.NewBillingServiceClient(conn("billingsvc"))
	s.outbox = outboxv1.NewOutboxServiceClient(conn("outboxsvc"))
}

func (s *stand) allReady(ctx context.Context) error {
	for _, svc := range s.services {
		if !isReady(ctx, svc.http) {
			return fmt.Errorf("%s is not ready", svc.name)
		}
	}
	return nil
}

// issue makes the plan's teams and keys.
func (s *stand) issue() {
	s.t.Helper()
	limits := func(a account) *keysv1.Limits {
		l := &keysv1.Limits{}
		if a.budget > 0 {
			l.MaxBudgetNanoUsd = proto.Int64(a.budget)
		}
		if a.parallel > 0 {
			l.MaxParallelRequests = proto.Int64(a.parallel)
		}
		return l
	}
	for _, team := range s.plan.teams {
		if _, err := s.teams.EnsureTeam(s.t.Context(), &keysv1.EnsureTeamRequest{TeamId: team.name, Limits: limits(team)}); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, key := range s.plan.keys {
		resp, err := s.keys.CreateKey(s.t.Context(), &keysv1.CreateKeyRequest{
			KeyAlias: key.name, TeamId: key.team, UserId: "session of " + key.name, Limits: limits(key), Duration: "1h",
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.keyIDs, s.secrets = append(s.keyIDs, resp.GetKey().GetKeyId()), append(s.secrets, resp.GetSecret())
	}
}

// patience bounds what must become true by itself, so that a suite that hangs
// shows its state in place of the test's deadline. It is no promise.
const patience = 90 * time.Second

// poll asks until there is no error any more.
func (s *stand) poll(ctx context.Context, what string, ask func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		call, done := context.WithTimeout(ctx, 5*time.Second)
		err := ask(call)
		done()
		if err == nil {
			return
		}
		if !pause(ctx, 25*time.Millisecond) {
			s.t.Fatalf("seed %d: in %v it did not come true that %s: %v", s.plan.seed, patience, what, err)
		}
	}
}

// autopsy says what the processes did wrong, and shows what they complained about
// last when the test has failed.
func (s *stand) autopsy() {
	for _, svc := range s.services {
		for _, fault := range svc.report() {
			s.t.Error(fault)
		}
	}
	if !s.t.Failed() {
		return
	}
	s.t.Log(s.plan)
	for name, svc := range s.services {
		var complaints []string
		for line := range strings.Lines(svc.log.String()) {
			if !strings.Contains(line, `"level":"info"`) {
				complaints = append(complaints, line)
			}
		}
		s.t.Logf("%s:\n%s", name, strings.Join(complaints[max(0, len(complaints)-8):], ""))
	}
	if dir := os.Getenv("CHAOS_LOGS"); dir != "" {
		for name, svc := range s.services {
			file := filepath.Join(dir, fmt.Sprintf("%d-%s.log", s.plan.seed, name))
			if err := os.WriteFile(file, []byte(svc.log.String()), 0o600); err != nil {
				s.t.Log(err)
			}
		}
	}
}
