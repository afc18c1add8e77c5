package autumn

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestAKeptServerGoesOnWhereItStopped restarts a server on its file: balances,
// receipts and the oracle are as they were, and a lock that was taken stays so.
func TestAKeptServerGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "autumn.json")
	track := func(want int) *Server {
		s := New(Options{DefaultGrant: 100, AutoCreateCustomers: true})
		if err := s.Keep(file); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(s)
		defer server.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/track", strings.NewReader(
			`{"customer_id":"acme","feature_id":"credits","value":1.5,"overage_behavior":"overflow","lock":{"enabled":true,"lock_id":"a"}}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer am_sk_test")
		req.Header.Set("X-Api-Version", "2.3.0")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("track answered %d, want %d", resp.StatusCode, want)
		}
		return s
	}
	track(http.StatusOK)
	s := track(http.StatusConflict)
	want, err := ParseAmount("1.5")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Applied()["acme"]; got.Credits != want || got.Calls != 1 {
		t.Errorf("applied %+v, want 1.5 credits by one call", got)
	}
}
