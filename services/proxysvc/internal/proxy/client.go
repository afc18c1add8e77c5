package proxy

import (
	"strings"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// claims are the limits that a request of the key for a model must keep.
func (k *Key) claims(model string) []ledger.Claim {
	bare := pricing.Bare(model)
	var claims []ledger.Claim
	for n, limits := range [...]ledger.Limits{k.Limits, k.ModelLimits[bare], k.TeamLimits, k.TeamModelLimits[bare]} {
		if !limits.Any() {
			continue
		}
		c := ledger.Claim{Limits: limits}
		switch n {
		case 0:
			c.Account, c.Who = ledger.AccountID{Kind: ledger.KindKey, ID: k.KeyID}, "key"
		case 1:
			c.Account, c.Who = ledger.AccountID{Kind: ledger.KindKeyModel, ID: k.KeyID, Model: bare}, "key's "+bare
		case 2:
			c.Account, c.Who = ledger.AccountID{Kind: ledger.KindTeam, ID: k.TeamID}, "team"
		case 3:
			c.Account, c.Who = ledger.AccountID{Kind: ledger.KindTeamModel, ID: k.TeamID, Model: bare}, "team's "+bare
		}
		claims = append(claims, c)
	}
	return claims
}

// clientHeaders are the headers by which agents and LiteLLM's clients name what
// they do, and what each is called on the ledger. Of those that mean the same the
// first counts.
var clientHeaders = []struct{ header, name string }{
	{"X-Claude-Code-Session-Id", "session_id"},
	{"X-Session-Id", "session_id"},
	{"X-Litellm-Session-Id", "session_id"},
	{"X-Litellm-Trace-Id", "trace_id"},
	{"X-Litellm-Call-Id", "call_id"},
	{"X-Client-Request-Id", "client_request_id"},
	{"X-Litellm-End-User-Id", "end_user"},
	{"X-Litellm-Customer-Id", "end_user"},
	{"X-App", "app"},
	{"X-Stainless-Retry-Count", "retry_count"},
	{"X-Stainless-Lang", "sdk_lang"},
}

// clientFacts are the ids and agent headers that a client sent.
func clientFacts(h Header, user string) map[string]string {
	facts := map[string]string{}
	for _, c := range clientHeaders {
		if v := h.Get(c.header); v != "" && facts[c.name] == "" {
			facts[c.name] = v
		}
	}
	if user != "" {
		facts["user_id"] = user
	}
	return facts
}

// maxTags bounds the tags of a request.
const maxTags = 100

// requestTags are the key's tags and those of LiteLLM's x-litellm-tags.
func requestTags(ofKey []string, h Header) []string {
	tags := append([]string{}, ofKey...)
	for tag := range strings.SplitSeq(h.Get("X-Litellm-Tags"), ",") {
		if tag = strings.TrimSpace(tag); tag != "" && len(tags) < maxTags {
			tags = append(tags, tag)
		}
	}
	return tags
}
