package serve

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

