package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // the rows run when this function has returned
	for _, row := range []struct {
		name string
		args []string
		vars map[string]string
		want int
	}{
		{"no simulator is named", nil, nil, 2},
		{"two are named", []string{"anthropic", "autumn"}, nil, 2},
		{"an unknown one is named", []string{"gemini"}, nil, 2},
		{"the pause is not a duration", []string{"anthropic"}, map[string]string{"SIM_CHUNK_DELAY": "15"}, 2},
		{"the pause of openai is not a duration", []string{"openai"}, map[string]string{"SIM_CHUNK_DELAY": "15"}, 2},
		{"the pause is negative", []string{"anthropic"}, map[string]string{"SIM_CHUNK_DELAY": "-1s"}, 2},
		{"the grant is not a number", []string{"autumn"}, map[string]string{"SIM_GRANT": "many"}, 2},
		{"the grant is negative", []string{"autumn"}, map[string]string{"SIM_GRANT": "-1"}, 2},
		{"the grant is more than an amount can hold", []string{"autumn"}, map[string]string{"SIM_GRANT": "1000000000"}, 2},
		{"the address is taken", []string{"anthropic"}, map[string]string{"SIM_LISTEN": taken.Addr().String()}, 1},
		{"anthropic is told to end", []string{"anthropic"}, map[string]string{"SIM_LISTEN": "127.0.0.1:0"}, 0},
		{"openai is told to end", []string{"openai"}, map[string]string{"SIM_LISTEN": "127.0.0.1:0"}, 0},
		{"stripe is told to end", []string{"stripe"}, map[string]string{"SIM_LISTEN": "127.0.0.1:0"}, 0},
		{"autumn is told to end", []string{"autumn"}, map[string]string{"SIM_LISTEN": "127.0.0.1:0"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // whatever gets as far as serving ends at once
			if got := run(ctx, row.args, environment(row.vars)); got != row.want {
				t.Errorf("run(%q) = %d, want %d", row.args, got, row.want)
			}
		})
	}
}

func TestASimulatorIsHealthyAndTakesOnlyItsKey(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, variable, method, path, body string }{
		{"anthropic", "ANTHROPIC_API_KEY", http.MethodGet, "/v1/models", ""},
		{"openai", "OPENAI_API_KEY", http.MethodGet, "/v1/models", ""},
		{"autumn", "AUTUMN_API_KEY", http.MethodPost, "/v1/customers", `{"id":"acme"}`},
		{"stripe", "STRIPE_API_KEY", http.MethodGet, "/v1/billing/meters", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			handler, err := simulator(row.name, environment(map[string]string{row.variable: "am_sk_test_mine"}))
			if err != nil {
				t.Fatal(err)
			}
			ask := func(method, path, key string) int {
				r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(row.body))
				r.Header.Set("anthropic-version", "2023-06-01")
				r.Header.Set("content-type", "application/json")
				if key != "" {
					r.Header.Set("authorization", "Bearer "+key)
				}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				return w.Code
			}
			if got := ask(http.MethodGet, "/healthz", ""); got != http.StatusOK {
				t.Errorf("GET /healthz = %d, want 200", got)
			}
			if got := ask(row.method, row.path, "am_sk_test_mine"); got != http.StatusOK {
				t.Errorf("%s with its key = %d, want 200", row.path, got)
			}
			if got := ask(row.method, row.path, "am_sk_test_other"); got != http.StatusUnauthorized {
				t.Errorf("%s with another key = %d, want 401", row.path, got)
			}
		})
	}
}

func TestTheGrantIsWhatANewCustomerHas(t *testing.T) {
	t.Parallel()
	handler, err := simulator("autumn", environment(map[string]string{"SIM_GRANT": "42"}))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/customers", strings.NewReader(`{"id":"acme"}`))
	r.Header.Set("authorization", "Bearer am_sk_test_any")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "42") {
		t.Errorf("a new customer is %d %s, want 200 with 42 credits", w.Code, w.Body)
	}
}
