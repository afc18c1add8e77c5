package serve

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

