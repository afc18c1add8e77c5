package serve

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

