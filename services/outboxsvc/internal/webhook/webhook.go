// Package webhook takes Autumn's webhooks, which Svix delivers: signed, several
// times, in any order, or not at all. So one only means that a team should be
// read; what it says of a balance is not even looked at.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// Path is where webhooks arrive.
const Path = "/v1/webhooks/autumn"

const (
	maxBody = 1 << 20
	// tolerance is how old or new a webhook may be: an older one may be a replay.
	tolerance = 5 * time.Minute
	// nudgeTime bounds how long a sender waits.
	nudgeTime = 5 * time.Second
)

// Options say whom to trust and whom to tell.
type Options struct {
	// Secrets are those of the endpoint, whsec_…; all are valid.
	Secrets []secret.String
	// Nudge is told of the team. An error that is no fault of the request makes
	// the sender try again.
	Nudge func(ctx context.Context, teamID, cause string) error
	// Taken is told of every webhook; refused is empty, or says why. Nil: nobody
	// is.
	Taken func(kind, refused string)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Handler takes webhooks.
type Handler struct {
	opt  Options
	keys [][]byte

	mu   sync.Mutex
	seen map[string]time.Time // ids, until when they are remembered
}

// New makes a handler. A secret that is not one is an error.
func New(opt Options) (*Handler, error) {
	h := &Handler{opt: opt, seen: map[string]time.Time{}}
	if h.opt.Now == nil {
		h.opt.Now = time.Now
	}
	if h.opt.Taken == nil {
		h.opt.Taken = func(string, string) {}
	}
	for _, s := range opt.Secrets {
		key, err := Key(s)
		if err != nil {
			return nil, err
		}
		h.keys = append(h.keys, key)
	}
	return h, nil
}

// Key reads a secret of an endpoint.
func Key(s secret.String) ([]byte, error) {
	text, ok := strings.CutPrefix(s.Reveal(), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 16 {
		return nil, errors.New("is not whsec_ and 16 bytes or more in base64")
	}
	return key, nil
}

// ServeHTTP answers 204 when the webhook was taken, now or before; 401 when it is
// not Autumn's, 400 when it is about nobody, and 503 when it should come again.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, status, refused := h.take(r)
	h.opt.Taken(kind, refused)
	if refused != "" {
		http.Error(w, refused, status)
		return
	}
	w.WriteHeader(status)
}

func (h *Handler) take(r *http.Request) (kind string, status int, refused string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody {
		return "", http.StatusBadRequest, "the body cannot be read, or is too long"
	}
	id, now := r.Header.Get("svix-id"), h.opt.Now()
	if why := h.verify(r.Header, body, now); why != "" {
		return "", http.StatusUnauthorized, why
	}
	kind, team := read(body)
	if team == "" {
		return kind, http.StatusBadRequest, "the webhook names no customer"
	}
	if !h.first(id, now) {
		return kind, http.StatusNoContent, ""
	}
	ctx, cancel := context.WithTimeout(r.Context(), nudgeTime)
	defer cancel()
	err = h.opt.Nudge(ctx, team, "webhook "+kind)
	switch {
	case err == nil:
		return kind, http.StatusNoContent, ""
	case fault.KindOf(err) == fault.Invalid:
		return kind, http.StatusBadRequest, "the customer is no team"
	}
	h.forget(id)
	return kind, http.StatusServiceUnavailable, "it cannot be taken now"
}

// verify checks the signature as Svix makes it, and the age. Several signatures
// may be given, while a secret is rotated.
func (h *Handler) verify(header http.Header, body []byte, now time.Time) (refused string) {
	id, stamp := header.Get("svix-id"), header.Get("svix-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || len(id) > 200 || err != nil {
		return "the headers svix-id and svix-timestamp are missing or wrong"
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return "the webhook is too old or from the future"
	}
	for _, key := range h.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		want := mac.Sum(nil)
		for given := range strings.FieldsSeq(header.Get("svix-signature")) {
			text, ok := strings.CutPrefix(given, "v1,")
			got, err := base64.StdEncoding.DecodeString(text)
			if ok && err == nil && hmac.Equal(got, want) {
				return ""
			}
		}
	}
	return "the signature is wrong"
}

// read finds what happened to whom. Autumn names the customer by id, or shows it
// whole.
func read(body []byte) (kind, team string) {
	var event struct {
		Type string `json:"type"`
		Data struct {
			CustomerID string `json:"customer_id"`
			Customer   struct {
				ID string `json:"id"`
			} `json:"customer"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &event) != nil {
		return "", ""
	}
	if team = event.Data.CustomerID; team == "" {
		team = event.Data.Customer.ID
	}
	return event.Type, team
}

// first notes an id and says whether it is new. Ids are forgotten when their
// webhook would be too old anyway, but for one that Svix sends again much later, under
// a signature of then: its team is read once more.
func (h *Handler) first(id string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for old, until := range h.seen {
		if now.After(until) {
			delete(h.seen, old)
		}
	}
	if _, ok := h.seen[id]; ok {
		return false
	}
	h.seen[id] = now.Add(2 * tolerance)
	return true
}

func (h *Handler) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.seen, id)
}
