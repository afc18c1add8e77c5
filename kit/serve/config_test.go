package serve

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/env"
)

func load(vars map[string]string) (Config, error) {
	r := &env.Reader{Get: func(name string) string { return vars[name] }}
	c := LoadConfig(r, "test", "TEST", Defaults{GRPCListen: ":1", HTTPListen: ":2", Drain: time.Minute})
	return c, r.Err()
}

func TestLoadConfigReportsAllFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"nothing is set", nil, []string{"LLM_PROXY_MASTER_KEY: not set", "LLM_PROXY_SERVICE_TOKEN: not set"}},
		{"everything is wrong", map[string]string{
			"TEST_GRPC_LISTEN": "nowhere", "TEST_HTTP_LISTEN": "4000", "TEST_DRAIN": "soon", "TEST_DRAIN_WAIT": "-1s", "LOG_LEVEL": "loud",
			"TEST_TRUSTED_PROXIES": "10.0.0.0/8,10.1.2.3",
			"LLM_PROXY_MASTER_KEY": "sk-tiny", "LLM_PROXY_SERVICE_TOKEN": "tiny-too",
		}, []string{
			`TEST_GRPC_LISTEN: "nowhere"`, `TEST_HTTP_LISTEN: "4000"`, `TEST_DRAIN: "soon"`, `TEST_DRAIN_WAIT: "-1s"`, `LOG_LEVEL: "loud"`,
			`TEST_TRUSTED_PROXIES: "10.1.2.3" is not a network`,
			"LLM_PROXY_MASTER_KEY or LLM_PROXY_SERVICE_TOKEN: has a value of 7 characters", "of 8 characters",
		}},
		{"one of several keys is short", map[string]string{"LLM_PROXY_MASTER_KEY": master + ",sk-tiny", "LLM_PROXY_SERVICE_TOKEN": service}, []string{"of 7 characters"}},
		{"the alias is short", map[string]string{"LITELLM_MASTER_KEY": "sk-tiny", "LLM_PROXY_SERVICE_TOKEN": service}, []string{"of 7 characters"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(tt.vars)
			if err == nil {
				t.Fatal("no fault was found")
			}
			if n := strings.Count(err.Error(), "\n") + 1; n != len(tt.want) {
				t.Errorf("%d faults, want %d: %v", n, len(tt.want), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %s: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "tiny") {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}

func TestLoadConfigTakesSeveralTokensAndAliases(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		vars map[string]string
		want []string // actor and secret
	}{
		{
			"one of each",
			map[string]string{"LLM_PROXY_MASTER_KEY": master, "LLM_PROXY_SERVICE_TOKEN": service},
			[]string{"master " + master, "service " + service},
		},
		{
			"the alias alone",
			map[string]string{"LITELLM_MASTER_KEY": master2, "LLM_PROXY_SERVICE_TOKEN": service},
			[]string{"master " + master2, "service " + service},
		},
		{
			"several, with blanks and empty parts",
			map[string]string{
				"LLM_PROXY_MASTER_KEY": master + " , " + master2 + ",", "LITELLM_MASTER_KEY": "sk-litellm-canary-1",
				"LLM_PROXY_SERVICE_TOKEN": service + ",service-canary-older-1",
			},
			[]string{"master " + master, "master " + master2, "master sk-litellm-canary-1", "service " + service, "service service-canary-older-1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := load(tt.vars)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, token := range c.Tokens {
				got = append(got, token.Actor+" "+token.Secret.Reveal())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("tokens (-want +got):\n%s", diff)
			}
			if !c.Caller.Token.Equal(service) {
				t.Error("the service token that is sent is not the first one")
			}
			if c.GRPCListen != ":1" || c.HTTPListen != ":2" || c.Drain != time.Minute || c.LogLevel != "info" {
				t.Errorf("LoadConfig = %+v, want the defaults", c)
			}
			if text := fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, "canary") {
				t.Errorf("a printed configuration shows a token: %s", text)
			}
		})
	}
}
