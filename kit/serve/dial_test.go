package serve

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

func TestDialTriesTheNextTarget(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	free, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	free.Close() // nobody listens there any more
	conn, err := Caller{Token: secret.New(master)}.Dial(free.Addr().String() + ", " + s.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Invoke(t.Context(), unaryMethod, wrapperspb.String("hi"), &wrapperspb.StringValue{}); err != nil {
		t.Errorf("with the first target down: %v", err)
	}
}

// TestDialMovesOn has the target go down that served the calls before.
func TestDialMovesOn(t *testing.T) {
	t.Parallel()
	first, second := start(t, nil), start(t, nil)
	answerAs := func(s *stand, name string) {
		s.echo.unary = func(context.Context, string) (string, error) { return name, nil }
	}
	answerAs(first, "first")
	answerAs(second, "second")
	conn, err := Caller{Token: secret.New(master)}.Dial(first.GRPCAddr() + "," + second.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, want := range []string{"first", "second"} {
		got := &wrapperspb.StringValue{}
		if err := conn.Invoke(t.Context(), unaryMethod, wrapperspb.String(""), got); err != nil || got.GetValue() != want {
			t.Errorf("served by %q, %v, want %q", got.GetValue(), err, want)
		}
		first.stop()
		if err := <-first.done; err != nil {
			t.Error(err)
		}
		first.done <- nil // so that the second round does not wait
	}
}

func TestDialSendsNoTokenThatItWasNotGiven(t *testing.T) {
	t.Parallel()
	s := start(t, func(_ *Config, o *Options) { o.OwnAuth = []string{unaryMethod} })
	var sent []string
	s.echo.unary = func(ctx context.Context, _ string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		sent = md.Get("authorization")
		return "", nil
	}
	for token, want := range map[string][]string{"": nil, service: {"Bearer " + service}} {
		if err := s.call(token); err != nil || !slices.Equal(sent, want) {
			t.Errorf("with token %q it sends %q, %v, want %q", token, sent, err, want)
		}
	}
	// What its caller sends is passed on.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer of-the-caller")
	if err := s.dial("").Invoke(ctx, unaryMethod, wrapperspb.String(""), &wrapperspb.StringValue{}); err != nil || !slices.Equal(sent, []string{"Bearer of-the-caller"}) {
		t.Errorf("the caller's own: %q, %v", sent, err)
	}
}

// slowListener is a network on which a handshake takes its time.
type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	wait := time.After(300 * time.Millisecond)
	return slowConn{conn, sync.OnceFunc(func() { <-wait })}, err
}

// slowConn holds back the first bytes that the server sends.
type slowConn struct {
	net.Conn
	first func()
}

func (c slowConn) Write(p []byte) (int, error) {
	c.first()
	return c.Conn.Write(p)
}

func TestDialWaitsForASlowHandshake(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(slowListener{lis}) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := Caller{Token: secret.New(service)}.Dial(lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("the first call over a slow network: %v", err)
	}
}
