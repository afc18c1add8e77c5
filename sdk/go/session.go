package llmproxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// SessionRequest asks for a session's key.
type SessionRequest struct {
	SessionID string // required
	OrgID     string // the team that pays; required, made when unknown
	OrgAlias  string // the team's name, used only when it is made

	Duration string // such as "24h"; empty: Config.KeyDuration
	Limits   Limits
	Models   []string // empty: all
	Tags     []string
	Metadata map[string]any
	// IdempotencyKey marks calls that are one: they get the same key, each with a
	// fresh secret. Empty: this call, with its retries, is one of its own.
	IdempotencyKey string
}

// SessionKey is what a sandbox needs.
type SessionKey struct {
	// Key is the plaintext. The proxy shows it only now. In direct mode it is the
	// real key of Anthropic.
	Key string
	// Proxied is false in direct mode.
	Proxied bool
	// Info tells about the key; it is empty in direct mode.
	Info Key
	// ExpiresAt is when the key stops working. Nil: never.
	ExpiresAt *time.Time
	// Env is the environment for the sandbox: ANTHROPIC_API_KEY and, with a proxy,
	// ANTHROPIC_BASE_URL, LLM_PROXY_API_KEY and LLM_PROXY_URL.
	Env map[string]string
	// OpencodeConfig is the content of an opencode.json.
	OpencodeConfig map[string]any
}

// GenerateSessionAPIKey gives a session its key and ends the keys that it had. In
// direct mode it answers with the real key of Anthropic and calls nobody.
func (c *Client) GenerateSessionAPIKey(ctx context.Context, r SessionRequest) (SessionKey, error) {
	const op = "issue a session key"
	session, err := segment(op, "session id", r.SessionID)
	if err != nil {
		return SessionKey{}, err
	}
	if r.OrgID == "" {
		return SessionKey{}, fmt.Errorf("%s: the organisation's id is empty", op)
	}
	if !c.Enabled() {
		return c.direct(op)
	}
	body := struct {
		TeamID         string         `json:"team_id"`
		TeamAlias      string         `json:"team_alias,omitempty"`
		Duration       string         `json:"duration,omitempty"`
		Limits         Limits         `json:"limits,omitzero"`
		Models         []string       `json:"models,omitempty"`
		Metadata       map[string]any `json:"metadata,omitempty"`
		IdempotencyKey string         `json:"idempotency_key"`
		Tags           []string       `json:"tags,omitempty"`
	}{
		r.OrgID, r.OrgAlias, cmp.Or(r.Duration, c.cfg.KeyDuration), r.Limits, r.Models, r.Metadata,
		cmp.Or(r.IdempotencyKey, rand.Text()), r.Tags,
	}
	var answer struct {
		Key            Key               `json:"key"`
		Secret         string            `json:"secret"`
		Env            map[string]string `json:"env"`
		OpencodeConfig map[string]any    `json:"opencode_config"`
	}
	err = c.call(ctx, request{op: op, method: http.MethodPost, path: "/v1/sessions/" + session + "/key", body: body}, &answer)
	if err != nil {
		return SessionKey{}, err
	}
	if answer.Secret == "" || answer.Env == nil {
		return SessionKey{}, &Error{Op: op, Status: http.StatusOK, Message: notOurs}
	}
	out := SessionKey{
		Key: answer.Secret, Proxied: true, Info: answer.Key, ExpiresAt: answer.Key.ExpiresAt,
		Env: answer.Env, OpencodeConfig: answer.OpencodeConfig,
	}
	if c.cfg.PublicURL != "" { // it wins over what the proxy was told itself
		out.Env["ANTHROPIC_BASE_URL"], out.Env["LLM_PROXY_URL"] = c.URL(), c.URL()
		out.OpencodeConfig = c.OpencodeConfig(out.Key, "")
	}
	return out, nil
}

func (c *Client) direct(op string) (SessionKey, error) {
	key := string(c.cfg.AnthropicAPIKey)
	if key == "" {
		return SessionKey{}, fmt.Errorf("%s: %w, and neither is ANTHROPIC_API_KEY", op, ErrDisabled)
	}
	return SessionKey{Key: key, Env: map[string]string{"ANTHROPIC_API_KEY": key}, OpencodeConfig: c.OpencodeConfig("", "")}, nil
}

// EndSession ends every key of a session and its running streams, waits until its
// requests are settled, and tells what it has cost. In direct mode nobody knows
// that: it fails with ErrDisabled.
func (c *Client) EndSession(ctx context.Context, sessionID string) (SessionCost, error) {
	const op = "end a session"
	session, err := segment(op, "session id", sessionID)
	if err != nil {
		return SessionCost{}, err
	}
	var cost SessionCost
	err = c.call(ctx, request{
		op: op, method: http.MethodPost, path: "/v1/sessions/" + session + ":end", body: struct{}{}, once: true,
	}, &cost)
	return cost, err
}

// Target names the keys to revoke: exactly one of its fields is set.
type Target struct {
	Key       string // the plaintext; only its hash is sent
	KeyID     string
	Alias     string
	SessionID string // all keys of the session
}

// RevokeVirtualKey ends keys for good and returns them: the key that is named, also
// when it had ended before, or the session's live keys. Within five seconds, as a rule
// at once, no proxy takes them and their streams are cut. What was never there is a
// 404. In direct mode there is nothing to end, and nothing is done.
func (c *Client) RevokeVirtualKey(ctx context.Context, t Target) ([]Key, error) {
	const op = "revoke a virtual key"
	body, err := t.selection()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if !c.Enabled() {
		return nil, nil
	}
	var answer struct {
		Keys []Key `json:"keys"`
	}
	// An alias or a session may have a new key by the time of a repeat.
	err = c.call(ctx, request{
		op: op, method: http.MethodPost, path: "/v1/keys:revoke", body: body, once: t.Alias != "" || t.SessionID != "",
	}, &answer)
	return answer.Keys, err
}

func (t Target) selection() (map[string]any, error) {
	body := map[string]any{}
	if t.Key != "" {
		body["tokens"] = []string{TokenOf(t.Key)}
	}
	if t.KeyID != "" {
		body["key_ids"] = []string{t.KeyID}
	}
	if t.Alias != "" {
		body["key_aliases"] = []string{t.Alias}
	}
	if t.SessionID != "" {
		body["user_id"] = t.SessionID
	}
	if len(body) != 1 {
		return nil, errors.New("name a key, a key's id, an alias or a session, and only one of them")
	}
	return body, nil
}
