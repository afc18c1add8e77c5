package serve

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

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
		Tokens: []Token{
			{Actor: "master", Secret: secret.New(master)},
			{Actor: "master", Secret: secret.New(master2)},
			{Actor: "service", Secret: secret.New(service)},
		},
		Drain: 20 * time.Second, DrainWait: time.Millisecond,
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

// dial connects over TCP with a token; "": without one.
func (s *stand) dial(token string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := Caller{Token: secret.New(token)}.Dial(s.GRPCAddr())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// newStream begins a call of the stream.
func (s *stand) newStream() grpc.ClientStream {
	s.t.Helper()
	stream, err := s.dial(master).NewStream(s.t.Context(), &grpc.StreamDesc{ServerStreams: true}, streamMethod)
	if err == nil {
		err = stream.SendMsg(wrapperspb.String(""))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

// firstOf receives one message.
func (s *stand) firstOf(stream grpc.ClientStream) error {
	return stream.RecvMsg(&wrapperspb.StringValue{})
}

// call invokes the unary method over TCP with a token.
func (s *stand) call(token string) error {
	s.t.Helper()
	return s.dial(token).Invoke(s.t.Context(), unaryMethod, wrapperspb.String("hi"), &wrapperspb.StringValue{})
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
