package autumn

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hooks are where webhooks go, and those that wait for Deliver.
type hooks struct {
	mu      sync.Mutex
	url     string
	key     []byte
	waiting []Webhook // oldest first
	sent    int
}

// Webhook is one that was sent, or waits.
type Webhook struct {
	ID   string
	Body []byte

	tries int       // that failed
	due   time.Time // of the next one
}

// retries are how long after a failure Svix tries again, as its documentation says.
// After the last one it gives up.
var retries = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

// SendWebhooks says where webhooks go, and by which secret, whsec_…, they are
// signed. They wait until DeliverWebhooks, so that tests decide on their order.
func (s *Server) SendWebhooks(url, secret string) error {
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		return fmt.Errorf("a secret is whsec_ and base64")
	}
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	s.hooks.url, s.hooks.key = url, key
	return nil
}

// send queues a webhook. Nobody waits for it, and it may be lost.
func (s *Server) send(cust *customer, kind string, data map[string]any) {
	data["customer_id"] = cust.id
	body, err := json.Marshal(map[string]any{"type": kind, "data": data})
	if err != nil {
		return
	}
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	if s.hooks.url == "" {
		return
	}
	s.hooks.sent++
	s.hooks.waiting = append(s.hooks.waiting, Webhook{ID: fmt.Sprintf("msg_%06d", s.hooks.sent), Body: body, due: s.now()})
}

// alert tells that a customer has used up what was granted.
func (s *Server) alert(cust *customer) {
	if cust.balance != nil && cust.balance.remaining() <= 0 {
		s.send(cust, "balances.limit_reached", map[string]any{"feature_id": s.opts.FeatureID, "limit_type": "included"})
	}
}

// WaitingWebhooks are those that were not delivered yet, oldest first.
func (s *Server) WaitingWebhooks() []Webhook {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	return append([]Webhook(nil), s.hooks.waiting...)
}

// DeliverWebhooks sends what is due, as choose says: in any order, twice, or not at
// all. Nil: each once, in order. What is not answered with 2xx is due again after a
// while of the server's clock, under the same id and a signature of then. It returns
// the statuses; 0: there was no answer.
func (s *Server) DeliverWebhooks(ctx context.Context, choose func([]Webhook) []Webhook) []int {
	now := s.now()
	s.hooks.mu.Lock()
	var list, later []Webhook
	for _, hook := range s.hooks.waiting {
		if hook.due.After(now) {
			later = append(later, hook)
		} else {
			list = append(list, hook)
		}
	}
	url, key := s.hooks.url, s.hooks.key
	s.hooks.waiting = later
	s.hooks.mu.Unlock()
	if choose != nil {
		list = choose(list)
	}
	var statuses []int
	for _, hook := range list {
		status := post(ctx, url, hook, SignWebhook(key, hook, now))
		statuses = append(statuses, status)
		if status/100 != 2 {
			s.retry(hook, now)
		}
	}
	return statuses
}

// retry makes a webhook due again, unless it was tried often enough.
func (s *Server) retry(hook Webhook, now time.Time) {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	again := slices.ContainsFunc(s.hooks.waiting, func(w Webhook) bool { return w.ID == hook.ID }) // it was sent twice
	if hook.tries == len(retries) || again {
		return
	}
	hook.due = now.Add(retries[hook.tries])
	hook.tries++
	s.hooks.waiting = append(s.hooks.waiting, hook)
}

// SignWebhook returns the headers under which Svix delivers a webhook.
func SignWebhook(key []byte, hook Webhook, at time.Time) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(hook.ID + "." + stamp + "."))
	mac.Write(hook.Body)
	h := http.Header{}
	h.Set("svix-id", hook.ID)
	h.Set("svix-timestamp", stamp)
	h.Set("svix-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

// post sends a webhook and returns the status; 0: there was no answer.
func post(ctx context.Context, url string, hook Webhook, header http.Header) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(hook.Body))
	if err != nil {
		return 0
	}
	r.Header = header
	r.Header.Set("content-type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
