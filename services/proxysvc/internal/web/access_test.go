package web_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func TestAKeyMayBeTiedToNetworksAndRoutes(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		edit   func(*proxy.Key)
		from   string // x-forwarded-for
		status int
	}{
		"from its network":             {func(k *proxy.Key) { k.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, "", 200},
		"from another one":             {func(k *proxy.Key) { k.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, "", 403},
		"it cannot say where it is":    {func(k *proxy.Key) { k.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, "10.1.2.3", 403},
		"its route":                    {func(k *proxy.Key) { k.Routes = []string{"/v1/models", "/v1/messages"} }, "", 200},
		"a route below one of its own": {func(k *proxy.Key) { k.Routes = []string{"/v1/mess*"} }, "", 200},
		"a group of routes":            {func(k *proxy.Key) { k.Routes = []string{"llm_api_routes"} }, "", 200},
		"another route":                {func(k *proxy.Key) { k.Routes = []string{"/v1/models", "info_routes"} }, "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, func(k *proxy.Key, _ *proxy.Settings) { row.edit(k) })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.proxy.URL+"/v1/messages", strings.NewReader(body(true, "")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"X-Api-Key": {virtualKey}, "Anthropic-Version": {"2023-06-01"}}
			if row.from != "" {
				req.Header.Set("X-Forwarded-For", row.from)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() // read to its end
			if text := read(t, resp); resp.StatusCode != row.status || row.status == 403 && !strings.Contains(text, "permission_error") {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		})
	}
}

func TestATrustedProxySaysWhereAClientIs(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.Proxies = serve.Proxies{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")}
	s := newStandWithin(t, limits, nil, func(k *proxy.Key, _ *proxy.Settings) {
		k.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	for from, want := range map[string]int{"10.1.2.3": 200, "10.1.2.3, 192.0.2.9": 200, "10.1.2.3, 203.0.113.5": 403, "nonsense": 403, "": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.proxy.URL+"/v1/messages", strings.NewReader(body(true, "")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"X-Api-Key": {virtualKey}, "Anthropic-Version": {"2023-06-01"}, "X-Forwarded-For": {from}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		read(t, resp)
		resp.Body.Close() // read to its end
		if resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", from, resp.StatusCode, want)
		}
	}
}
