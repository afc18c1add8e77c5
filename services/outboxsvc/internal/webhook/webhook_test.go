package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	sim "github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const (
	hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	oldSecret  = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	body       = `{"type":"billing.updated","data":{"customer_id":"acme","balance":1000000}}`
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// stand takes webhooks and notes whom it was told of.
type stand struct {
	*Handler
	nudged []string
	fail   error
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{}
	h, err := New(Options{
		Secrets: []secret.String{secret.New(hookSecret), secret.New(oldSecret)}, Now: func() time.Time { return noon },
		Nudge: func(_ context.Context, team, cause string) error {
			if s.fail != nil {
				return s.fail
			}
			s.nudged = append(s.nudged, team+" "+cause)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Handler = h
	return s
}

func (s *stand) send(t *testing.T, id, text, by string, at time.Time, change func(http.Header)) int {
	t.Helper()
	key, err := Key(secret.New(by))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path, strings.NewReader(text))
	r.Header = sim.SignWebhook(key, sim.Webhook{ID: id, Body: []byte(text)}, at)
	if change != nil {
		change(r.Header)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code
}

func TestWhatIsTakenAndWhatIsNot(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text, by string
		at             time.Time
		change         func(http.Header)
		want           int
	}{
		{"a right one", body, hookSecret, noon, nil, 204},
		{"one signed by the other secret, while it is rotated", body, oldSecret, noon, nil, 204},
		{"one with two signatures", body, hookSecret, noon, func(h http.Header) { h.Set("svix-signature", "v1,AAAA "+h.Get("svix-signature")) }, 204},
		{"the customer is shown whole", `{"type":"customer.products.updated","data":{"customer":{"id":"acme"}}}`, hookSecret, noon, nil, 204},
		{"five minutes old", body, hookSecret, noon.Add(-5 * time.Minute), nil, 204},
		{"older: a replay", body, hookSecret, noon.Add(-5*time.Minute - time.Second), nil, 401},
		{"from the future", body, hookSecret, noon.Add(5*time.Minute + time.Second), nil, 401},
		{"signed by nobody", body, hookSecret, noon, func(h http.Header) { h.Del("svix-signature") }, 401},
		{"signed by somebody else", body, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", noon, nil, 401},
		{"another version of signature", body, hookSecret, noon, func(h http.Header) {
			h.Set("svix-signature", strings.Replace(h.Get("svix-signature"), "v1,", "v1a,", 1))
		}, 401},
		{"another id than was signed", body, hookSecret, noon, func(h http.Header) { h.Set("svix-id", "x") }, 401},
		{"no id", body, hookSecret, noon, func(h http.Header) { h.Del("svix-id") }, 401},
		{"about nobody", `{"type":"x","data":{}}`, hookSecret, noon, nil, 400},
		{"no JSON", `hello`, hookSecret, noon, nil, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			if got := s.send(t, "msg_1", row.text, row.by, row.at, row.change); got != row.want {
				t.Errorf("status = %d, want %d", got, row.want)
			}
			if nudged := len(s.nudged) == 1; nudged != (row.want == 204) {
				t.Errorf("nudged %v", s.nudged)
			}
		})
	}
}

func TestDuplicatesAreTakenOnce(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, id := range []string{"b", "a", "b", "b", "a"} {
		if got := s.send(t, id, body, hookSecret, noon, nil); got != 204 {
			t.Errorf("%s = %d, want 204", id, got)
		}
	}
	if diff := cmp.Diff([]string{"acme webhook billing.updated", "acme webhook billing.updated"}, s.nudged); diff != "" {
		t.Errorf("nudged (-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeTakenComesAgain(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.fail = errors.New("billing is down")
	if got := s.send(t, "a", body, hookSecret, noon, nil); got != 503 {
		t.Errorf("status = %d, want 503", got)
	}
	s.fail = nil
	if got := s.send(t, "a", body, hookSecret, noon, nil); got != 204 || len(s.nudged) != 1 {
		t.Errorf("again = %d, nudged %v, want it taken now", got, s.nudged)
	}
}

func TestASecretIsChecked(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "whsec_", "whsec_!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="} {
		if _, err := New(Options{Secrets: []secret.String{secret.New(bad)}}); err == nil {
			t.Errorf("%q was taken as a secret", bad)
		} else if text := fmt.Sprint(err); len(bad) > 10 && strings.Contains(text, bad) {
			t.Errorf("the error shows the secret: %s", text)
		}
	}
}

// What Svix sends again, because we could not take it or our answer was lost, is the
// same message: its team is nudged once.
func TestAWebhookThatComesAgainIsTheSameMessage(t *testing.T) {
	t.Parallel()
	now := noon
	vendor := sim.New(sim.Options{Now: func() time.Time { return now }})
	s := newStand(t)
	s.opt.Now = func() time.Time { return now }
	lost := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lost { // on its way back
			s.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	if err := vendor.SendWebhooks(srv.URL+Path, hookSecret); err != nil {
		t.Fatal(err)
	}
	vendor.Grant("acme", sim.Credits(5))
	for _, step := range []struct {
		name   string
		after  time.Duration
		fail   error
		lost   bool
		status int
	}{
		{"billing is away", 0, errors.New("away"), false, 503},
		{"our answer is lost", 5 * time.Second, nil, true, 502},
		{"it comes once more", 5 * time.Minute, nil, false, 204},
	} {
		now = now.Add(step.after)
		s.fail, lost = step.fail, step.lost
		if got := vendor.DeliverWebhooks(t.Context(), nil); len(got) != 1 || got[0] != step.status {
			t.Errorf("%s: delivered with %v, want %d", step.name, got, step.status)
		}
	}
	if diff := cmp.Diff([]string{"acme webhook billing.updated"}, s.nudged); diff != "" {
		t.Errorf("nudged (-want +got):\n%s", diff)
	}
}

// The example of Svix's documentation is signed by the same rule as ours and the
// simulator's: what is wrong with it is only that it names no customer.
func TestSvixsOwnExampleIsSignedRight(t *testing.T) {
	t.Parallel()
	const id, text, signature = "msg_p5jXN8AQM9LWM0D4loKWxJek", `{"test": 2432232314}`, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	at := time.Unix(1614265330, 0)
	key, err := Key(secret.New(hookSecret))
	if err != nil {
		t.Fatal(err)
	}
	if got := sim.SignWebhook(key, sim.Webhook{ID: id, Body: []byte(text)}, at).Get("svix-signature"); got != signature {
		t.Errorf("the simulator signs %s, want %s", got, signature)
	}
	s := newStand(t)
	s.opt.Now = func() time.Time { return at }
	given := func(h http.Header) { h.Set("svix-signature", signature) }
	if got := s.send(t, id, text, hookSecret, at, given); got != 400 {
		t.Errorf("the example is answered with %d, want 400: it names no customer", got)
	}
	if got := s.send(t, id, text+" ", hookSecret, at, given); got != 401 {
		t.Errorf("another body under its signature is answered with %d, want 401", got)
	}
}
