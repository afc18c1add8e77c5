package serve

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// openStream begins a stream and waits for its first message.
func (s *stand) openStream() grpc.ClientStream {
	s.t.Helper()
	stream := s.newStream()
	if err := s.firstOf(stream); err != nil {
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

func TestDrainLetsAHalfSentHTTPAnswerFinish(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	err := s.Mux().HandlePath(http.MethodGet, "/v1/slow", func(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
		io.WriteString(w, "first ") //nolint:errcheck // the test reads it
		http.NewResponseController(w).Flush()
		<-s.Draining()
		io.WriteString(w, "second") //nolint:errcheck // the test reads it
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr()+"/v1/slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.stop()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "first second" {
		t.Errorf("the answer: %q, %v", text, err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Run = %v, want a clean drain", err)
	}
}

func TestAHotRouteDrainsLikeTheOthers(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	var draining <-chan struct{}
	s := start(t, func(_ *Config, o *Options) {
		o.Hot = map[string]http.Handler{"/v1/hot": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "first ") //nolint:errcheck // the test reads it
			if r.URL.RawQuery != "" {
				return
			}
			http.NewResponseController(w).Flush()
			<-started
			<-draining
			io.WriteString(w, "second") //nolint:errcheck // the test reads it
		})}
	})
	draining = s.Draining()
	close(started)
	if code, body := s.get(http.MethodPost, "/v1/hot?once", ""); code != http.StatusOK || body != "first " {
		t.Errorf("the hot route: %d %q", code, body)
	}
	if code, _ := s.get(http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("another route: %d", code)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/v1/hot", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := &http.Transport{} // the other's connection is net/http's now, which knows no such route
	defer fresh.CloseIdleConnections()
	resp, err := fresh.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.stop()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "first second" {
		t.Errorf("the answer: %q, %v", text, err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Run = %v, want a clean drain", err)
	}
}

// TestADrainingServiceIsNotReadyButStillAnswers looks in during DrainWait.
func TestADrainingServiceIsNotReadyButStillAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config, _ *Options) { c.DrainWait = time.Second })
	conn := s.dial(master)
	if err := s.call(master); err != nil {
		t.Fatal(err)
	}
	s.stop()
	<-s.Draining()
	if code, body := s.get(http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s, want 503", code, body)
	}
	if code, body := s.get(http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz: %d %s, want 200", code, body)
	}
	if err := s.call(master); err != nil {
		t.Errorf("a call while load balancers take note: %v", err)
	}
	got, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v, %v, want NOT_SERVING", got, err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Run = %v, want a clean drain", err)
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
