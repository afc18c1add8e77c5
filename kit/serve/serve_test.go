package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

const (
	master  = "sk-master-canary-1234"
	master2 = "sk-master-canary-5678"
	service = "service-canary-123456"
)

// echo is a service made by hand: its unary method answers as the test decides,
// its stream sends what it is given and then waits.
type echo struct {
	unary  func(ctx context.Context, in string) (string, error)
	stream func(grpc.ServerStream) error
}

const (
	unaryMethod  = "/test.Echo/Unary"
	streamMethod = "/test.Echo/Stream"
)

func (e *echo) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			in := &wrapperspb.StringValue{}
			if err := dec(in); err != nil {
				return nil, err
			}
			return chain(ctx, in, &grpc.UnaryServerInfo{FullMethod: unaryMethod}, func(ctx context.Context, req any) (any, error) {
				out, err := e.unary(ctx, req.(*wrapperspb.StringValue).GetValue())
				return wrapperspb.String(out), err
			})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.stream(s) }}},
	}
}

// lockedBuffer collects a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// stand is a running server.
type stand struct {
	*Server
	t    *testing.T
	echo *echo
	log  *lockedBuffer
	stop context.CancelFunc
	done chan error
}

func testConfig() Config {
	return Config{
		Name: "test", GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", LogLevel: "debug",
		Tokens: []Token{{"master", secret.New(master)}, {"master", secret.New(master2)}, {"service", secret.New(service)}},
		Drain:  20 * time.Second, DrainWait: time.Millisecond,
	}
}

func start(t *testing.T, edit func(*Config, *Options)) *stand {
	t.Helper()
	s := &stand{t: t, echo: &echo{}, log: &lockedBuffer{}, done: make(chan error, 1)}
	s.echo.unary = func(_ context.Context, in string) (string, error) { return in, nil }
	cfg := testConfig()
	cfg.LogTo = s.log
	opt := Options{Registry: NewRegistry(), OpenAPI: []byte(`{"swagger":"2.0"}`)}
	if edit != nil {
		edit(&cfg, &opt)
	}
	opt.Log = Logger(cfg)
	var err error
	if s.Server, err = New(cfg, opt); err != nil {
		t.Fatal(err)
	}
	s.GRPC().RegisterService(s.echo.desc(), nil)
	err = s.Mux().HandlePath(http.MethodPost, "/v1/echo", func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		// What a generated gateway handler does.
		ctx, err := runtime.AnnotateContext(r.Context(), s.Mux(), r, unaryMethod)
		out := &wrapperspb.StringValue{}
		if err == nil {
			err = s.Conn().Invoke(ctx, unaryMethod, wrapperspb.String("rest"), out)
		}
		if err != nil {
			runtime.HTTPError(ctx, s.Mux(), JSON(false), w, r, err)
			return
		}
		io.WriteString(w, out.GetValue()) //nolint:errcheck // the test reads it
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.stop = cancel
	go func() { s.done <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return s
}

// call invokes the unary method over TCP with a token.
func (s *stand) call(token string) error {
	s.t.Helper()
	conn, err := Dial(s.GRPCAddr(), secret.New(token))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	return conn.Invoke(s.t.Context(), unaryMethod, wrapperspb.String("hi"), &wrapperspb.StringValue{})
}

func (s *stand) get(method, path, token string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.HTTPAddr()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestErrorsBecomeStatusesAndUnknownOnesSayNothing(t *testing.T) {
	t.Parallel()
	driver := errors.New(`relation "keys.keys" does not exist, password=hunter2`)
	tests := []struct {
		name string
		err  error
		code codes.Code
		http int
		text string
	}{
		{"invalid", fault.Errorf(fault.Invalid, "name is empty"), codes.InvalidArgument, 400, "name is empty"},
		{"not found", fault.Errorf(fault.NotFound, "no such key"), codes.NotFound, 404, "no such key"},
		{"exists", fault.Errorf(fault.Exists, "taken"), codes.AlreadyExists, 409, "taken"},
		{"conflict", fault.Errorf(fault.Conflict, "changed"), codes.Aborted, 409, "changed"},
		{"precondition", fault.Errorf(fault.Precondition, "not now"), codes.FailedPrecondition, 400, "not now"},
		{"denied", fault.Errorf(fault.Denied, "no"), codes.PermissionDenied, 403, "no"},
		{"exhausted", fault.Errorf(fault.Exhausted, "slow down"), codes.ResourceExhausted, 429, "slow down"},
		{"unavailable, its cause hidden", fault.Wrap(fault.Unavailable, driver, "try again"), codes.Unavailable, 503, "try again"},
		{"data loss", fault.Errorf(fault.DataLoss, "a row is missing"), codes.DataLoss, 500, "a row is missing"},
		{"anything else", driver, codes.Internal, 500, "internal error"},
		{"another service's answer", status.Error(codes.NotFound, "team x not found"), codes.NotFound, 404, "team x not found"},
		{"another service's doubts about us", status.Error(codes.Unauthenticated, "bad service token"), codes.Internal, 500, "internal error"},
		{"a deadline", context.DeadlineExceeded, codes.DeadlineExceeded, 504, "took too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			s.echo.unary = func(context.Context, string) (string, error) { return "", tt.err }
			err := s.call(master)
			if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("over gRPC: %v, want %s with %q", err, tt.code, tt.text)
			}
			code, body := s.get(http.MethodPost, "/v1/echo", master)
			if code != tt.http || !strings.Contains(body, tt.text) || strings.Contains(body, "hunter2") {
				t.Errorf("over REST: %d %s, want %d with %q", code, body, tt.http, tt.text)
			}
		})
	}
}

func TestACausesTextIsInTheLogOnly(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) {
		return "", fault.Wrap(fault.Unavailable, errors.New("dial tcp: refused"), "try again")
	}
	if err := s.call(master); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("the caller sees %v", err)
	}
	if !strings.Contains(s.log.String(), "dial tcp: refused") {
		t.Errorf("the log does not tell the cause:\n%s", s.log)
	}
}

func TestAPanicIsAnInternalErrorLikeAnyOther(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.unary = func(context.Context, string) (string, error) { panic("at the disco") }
	if err := s.call(master); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "disco") {
		t.Errorf("the caller sees %v", err)
	}
	if !strings.Contains(s.log.String(), "at the disco") || !strings.Contains(s.log.String(), "serve_test.go") {
		t.Errorf("the log does not tell where:\n%s", s.log)
	}
	if _, metrics := s.get(http.MethodGet, "/metrics", master); !strings.Contains(metrics, `test_rpc_calls_total{code="Internal",method="/test.Echo/Unary"} 1`) {
		t.Errorf("the panic is not counted:\n%s", metrics)
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var actor string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { actor = Actor(ctx); return in, nil }
	for token, want := range map[string]string{master: "master", master2: "master", service: "service"} {
		if err := s.call(token); err != nil || actor != want {
			t.Errorf("a right token: %v, actor %q, want %q", err, actor, want)
		}
		if code, _ := s.get(http.MethodPost, "/v1/echo", token); code != http.StatusOK {
			t.Errorf("a right token over REST: %d", code)
		}
	}
	for _, token := range []string{"", "sk-wrong", master + "x", master[1:]} {
		if err := s.call(token); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a wrong token: %v, want Unauthenticated", err)
		}
		if code, _ := s.get(http.MethodPost, "/v1/echo", token); code != http.StatusUnauthorized {
			t.Errorf("a wrong token over REST: %d, want 401", code)
		}
		if code, _ := s.get(http.MethodGet, "/metrics", token); code != http.StatusUnauthorized {
			t.Errorf("metrics with a wrong token: %d, want 401", code)
		}
	}
	conn, err := Dial(s.GRPCAddr(), secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health needs no token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic "+master)
	if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("another scheme: %v, want Unauthenticated", err)
	}
	for _, planted := range []string{master, master2, service} {
		if strings.Contains(s.log.String(), planted) {
			t.Error("a token is in the log")
		}
	}
}

func TestMethodsWithAuthenticationOfTheirOwnPass(t *testing.T) {
	t.Parallel()
	s := start(t, func(_ *Config, o *Options) { o.OwnAuth = []string{unaryMethod} })
	if err := s.call(""); err != nil {
		t.Errorf("without a token: %v", err)
	}
}

func TestTheRequestIDIsTheCallersWhenItIsHarmless(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var got string
	s.echo.unary = func(ctx context.Context, in string) (string, error) { got = RequestID(ctx); return in, nil }
	conn, err := Dial(s.GRPCAddr(), secret.New(master))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for sent, taken := range map[string]bool{"abc-1": true, "a b": false, strings.Repeat("x", 129): false, "": false} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", sent)
		if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); err != nil {
			t.Fatal(err)
		}
		if (got == sent) != taken || got == "" {
			t.Errorf("sent %q, got %q", sent, got)
		}
	}
}

func TestHealthAndDocuments(t *testing.T) {
	t.Parallel()
	notReady := errors.New("not yet")
	var ready error
	s := start(t, func(_ *Config, o *Options) { o.Ready = func(context.Context) error { return ready } })
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/openapi.json": "swagger"} {
		if code, body := s.get(http.MethodGet, path, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	ready = notReady
	if code, body := s.get(http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "not yet") {
		t.Errorf("/readyz of a service that is not ready: %d %s", code, body)
	}
	if code, _ := s.get(http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz of a service that is not ready: %d", code)
	}
}

// openStream begins a stream and waits for its first message.
func (s *stand) openStream() grpc.ClientStream {
	s.t.Helper()
	conn, err := Dial(s.GRPCAddr(), secret.New(master))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	stream, err := conn.NewStream(s.t.Context(), &grpc.StreamDesc{ServerStreams: true}, streamMethod)
	if err == nil {
		err = stream.SendMsg(wrapperspb.String(""))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil {
		err = stream.RecvMsg(&wrapperspb.StringValue{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

func TestDrainLetsWhatRunsFinish(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.echo.stream = func(ss grpc.ServerStream) error {
		if err := ss.SendMsg(wrapperspb.String("first")); err != nil {
			return err
		}
		<-s.Draining() // so that the second half is sent while the server drains
		return ss.SendMsg(wrapperspb.String("second"))
	}
	stream := s.openStream()
	s.stop()
	got := &wrapperspb.StringValue{}
	if err := stream.RecvMsg(got); err != nil || got.GetValue() != "second" {
		t.Errorf("the second half: %v, %v", got, err)
	}
	if err := stream.RecvMsg(got); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v, want EOF", err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Run = %v, want a clean drain", err)
	}
	if _, err := net.Dial("tcp", s.GRPCAddr()); err == nil { //nolint:noctx // immediate
		t.Error("the server still listens")
	}
}

func TestDrainEndsWhatDoesNot(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config, _ *Options) { c.Drain = 50 * time.Millisecond })
	s.echo.stream = func(ss grpc.ServerStream) error {
		if err := ss.SendMsg(wrapperspb.String("first")); err != nil {
			return err
		}
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	stream := s.openStream()
	s.stop()
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err == nil {
		t.Error("the stream went on")
	}
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "was ended") {
		t.Errorf("Run = %v, want that calls were ended", err)
	}
}

func TestAPortInUseIsNamedWithWhoWantsIt(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for name, edit := range map[string]func(*Config){
		"gRPC": func(c *Config) { c.GRPCListen = taken.Addr().String() },
		"HTTP": func(c *Config) { c.HTTPListen = taken.Addr().String() },
	} {
		cfg := testConfig()
		edit(&cfg)
		_, err := New(cfg, Options{Log: Logger(cfg), Registry: NewRegistry()})
		if err == nil || !strings.Contains(err.Error(), "test wants "+taken.Addr().String()+" for "+name) {
			t.Errorf("New = %v", err)
		}
	}
}

func TestDialTriesTheNextTarget(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	free, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	free.Close() // nobody listens there any more
	conn, err := Dial(free.Addr().String()+", "+s.GRPCAddr(), secret.New(master))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Invoke(t.Context(), unaryMethod, wrapperspb.String("hi"), &wrapperspb.StringValue{}); err != nil {
		t.Errorf("with the first target down: %v", err)
	}
}

func TestLoadConfigReportsAllFaults(t *testing.T) {
	t.Parallel()
	load := func(vars map[string]string) (Config, error) {
		r := &env.Reader{Get: func(name string) string { return vars[name] }}
		c := LoadConfig(r, "test", "TEST", Defaults{GRPCListen: ":1", HTTPListen: ":2", Drain: time.Second})
		return c, r.Err()
	}
	_, err := load(map[string]string{"TEST_GRPC_LISTEN": "nowhere", "TEST_DRAIN": "soon", "LLM_PROXY_MASTER_KEY": "short"})
	for _, want := range []string{"TEST_GRPC_LISTEN", "TEST_DRAIN", "at least 16", "LLM_PROXY_SERVICE_TOKEN"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "short") {
		t.Errorf("the error shows the key: %v", err)
	}
	c, err := load(map[string]string{"LLM_PROXY_MASTER_KEY": master + ", " + master2, "LITELLM_MASTER_KEY": "sk-litellm-canary-1", "LLM_PROXY_SERVICE_TOKEN": service})
	if err != nil || len(c.Tokens) != 4 || !c.ServiceToken.Equal(service) || c.GRPCListen != ":1" {
		t.Errorf("LoadConfig = %+v, %v", c, err)
	}
}

func TestMainsExitStatus(t *testing.T) {
	t.Parallel()
	good := func(func(string) string) (int, error) { return 1, nil }
	bad := func(func(string) string) (int, error) { return 0, errors.New("A: not set") }
	fine := func(context.Context, int) error { return nil }
	fails := func(context.Context, int) error { return errors.New("port in use") }
	for name, tt := range map[string]struct {
		args         []string
		load         func(func(string) string) (int, error)
		run, migrate func(context.Context, int) error
		want         int
	}{
		"a clean run":               {[]string{"x"}, good, fine, fails, 0},
		"a run that fails":          {[]string{"x"}, good, fails, fine, 1},
		"a migration":               {[]string{"x", "migrate"}, good, fails, fine, 0},
		"a wrong configuration":     {[]string{"x"}, bad, fine, fine, 2},
		"an unknown command":        {[]string{"x", "dance"}, good, fine, fine, 2},
		"no database to migrate":    {[]string{"x", "migrate"}, good, fine, nil, 2},
		"more than one argument":    {[]string{"x", "migrate", "now"}, good, fine, fine, 2},
		"an end that was asked for": {[]string{"x"}, good, func(context.Context, int) error { return context.Canceled }, nil, 0},
	} {
		if got := Main(tt.args, tt.load, tt.run, tt.migrate); got != tt.want {
			t.Errorf("%s exits with %d, want %d", name, got, tt.want)
		}
	}
}
