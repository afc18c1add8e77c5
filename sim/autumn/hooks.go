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
	waiting []Webhook
	sent    int
}

// Webhook is one that was sent, or waits.
type Webhook struct {
	ID   string
	Body []byte
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
	s.hooks.waiting = append(s.hooks.waiting, Webhook{fmt.Sprintf("msg_%06d", s.hooks.sent), body})
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

// DeliverWebhooks sends what waits, as choose says: in any order, twice, or not at
// all. Nil: each once, in order. It returns the statuses.
func (s *Server) DeliverWebhooks(ctx context.Context, choose func([]Webhook) []Webhook) ([]int, error) {
	s.hooks.mu.Lock()
	list, url, key := s.hooks.waiting, s.hooks.url, s.hooks.key
	s.hooks.waiting = nil
	s.hooks.mu.Unlock()
	if choose != nil {
		list = choose(list)
	}
	var statuses []int
	for _, hook := range list {
		status, err := post(ctx, url, hook, SignWebhook(key, hook, s.now()))
		if err != nil {
			return statuses, fmt.Errorf("deliver webhook %s: %w", hook.ID, err)
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
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

func post(ctx context.Context, url string, hook Webhook, header http.Header) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(hook.Body))
	if err != nil {
		return 0, err
	}
	r.Header = header
	r.Header.Set("content-type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
