package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
)

// scenario is one kind of load, for some targets.
type scenario struct {
	name, about string
	targets     []string
	keys        func(keyring) []string
	body        int // bytes
	stream      bool
	pace        upstream.Pace
	clients     int
	rate        float64 // requests a second; 0: a closed loop
	leave       bool    // clients drop their connections
	hold        int     // streams that are open meanwhile
	extra       bool    // runs only when it is named
	// variants are measured instead of targets: proxysvc under other circumstances.
	variants []variant
	// other measures something else than requests.
	other func(ctx context.Context, s *stand) ([]line, error)
	// spoils says that the ledger cannot be audited afterwards.
	spoils bool
}

// variant is a scenario with a difference.
type variant struct {
	name   string
	change func(*scenario)
	// before runs once, before the variant is first measured, and makes that the
	// variants before it cannot be measured again: all rounds of one come first.
	before func(ctx context.Context, s *stand) error
}

// Streams that take as long as real ones: 200 ms to the first byte, then twenty
// deltas, ten a second.
var paced = upstream.Pace{First: 200 * time.Millisecond, Gap: 100 * time.Millisecond, Deltas: 20}

// Streams that give a client time to leave.
var brisk = upstream.Pace{First: 20 * time.Millisecond, Gap: 10 * time.Millisecond, Deltas: 20}

// length is how long a paced stream takes.
func (p scenario) length() time.Duration {
	return p.pace.First + time.Duration(p.pace.Deltas)*p.pace.Gap
}

// The variants of what grows.
const few, grown = "before", "grown"

func (k keyring) unlimited() []string { return k.many }
func (k keyring) hot() []string       { return k.team }
func (k keyring) budgets() []string   { return k.limited }
func (k keyring) rates() []string     { return k.rated }
func (k keyring) few() []string       { return k.many[:20] }
func (k keyring) spread() []string    { return k.many[:len(k.team)] }
func (k keyring) million() []string   { return k.mass }

// scenarios lists all. What only proxysvc is measured in says something about
// proxysvc alone.
func scenarios() []scenario {
	all := []string{direct, nginx, reverse, portkey, proxysvc}
	fast := []string{direct, nginx, reverse, proxysvc}
	own := []string{proxysvc}
	const kb = 1 << 10
	list := []scenario{
		{name: "plain1", about: "2 KB, one at a time", targets: all, body: 2 * kb, clients: 1},
		{name: "plain8", about: "2 KB, c=8", targets: all, body: 2 * kb, clients: 8},
		{name: "plain64", about: "2 KB, c=64", targets: all, body: 2 * kb, clients: 64},
		{name: "limited8", about: "2 KB, c=8, keys and team with budgets", targets: []string{nginx, reverse, portkey, proxysvc}, body: 2 * kb, clients: 8, keys: keyring.budgets},
		{name: "limited64", about: "2 KB, c=64, keys and team with budgets", targets: []string{nginx, reverse, portkey, proxysvc}, body: 2 * kb, clients: 64, keys: keyring.budgets},
		{name: "rated64", about: "2 KB, c=64, keys with budgets and requests a minute: Postgres decides before each call", targets: []string{nginx, reverse, proxysvc}, body: 2 * kb, clients: 64, keys: keyring.rates},
		{name: "hot", about: "2 KB, c=64, one team has all traffic", targets: own, body: 2 * kb, clients: 64, keys: keyring.hot},
		{name: "open", about: "2 KB, 500 a second, whether answered or not", targets: fast, body: 2 * kb, clients: 64, rate: 500},
		{name: "sse", about: "streams of 20 deltas at once, c=8", targets: all, body: 2 * kb, stream: true, pace: upstream.Pace{Deltas: 20}, clients: 8},
		{name: "light", about: "streams, 20 a second, 200 ms to the first byte", targets: fast, body: 2 * kb, stream: true, pace: upstream.Pace{First: paced.First, Deltas: 20}, clients: 16, rate: 20},
		{name: "instant", about: "streams, 20 a second, of an upstream that answers at once", targets: fast, body: 2 * kb, stream: true, pace: upstream.Pace{Deltas: 20}, clients: 4, rate: 20},
		{name: "paced200", about: "200 streams, 200 ms + 20 deltas", targets: all, body: 2 * kb, stream: true, pace: paced, clients: 200},
		{name: "paced1000", about: "1,000 streams, 200 ms + 20 deltas", targets: fast, body: 2 * kb, stream: true, pace: paced, clients: 1000},
		{name: "body20k", about: "20 KB, c=8", targets: fast, body: 20 * kb, clients: 8},
		{name: "body200k", about: "200 KB, c=8", targets: all, body: 200 * kb, clients: 8},
		{name: "body1m", about: "1 MB, c=8", targets: fast, body: 1024 * kb, clients: 8},
		{name: "leave", about: "clients leave streams after 3 deltas, c=64", targets: own, body: 2 * kb, stream: true, leave: true, pace: brisk, clients: 64},
		{name: "leaveplain", about: "clients leave before the answer, c=16", targets: own, body: 2 * kb, leave: true, clients: 16},
		{name: "growkeys", about: "2 KB, c=16, 20 keys or 700 times as many", body: 2 * kb, clients: 16, variants: []variant{
			{name: few, change: func(p *scenario) { p.keys = keyring.few }}, {name: grown, change: func(*scenario) {}},
		}},
		{name: "growteams", about: "2 KB, c=16, one team or 1,000", body: 2 * kb, clients: 16, variants: []variant{
			{name: few, change: func(p *scenario) { p.keys = keyring.hot }}, {name: grown, change: func(p *scenario) { p.keys = keyring.spread }},
		}},
		{name: "growstreams", about: "2 KB, c=16, beside no open stream or 1,000", body: 2 * kb, clients: 16, variants: []variant{
			{name: few, change: func(*scenario) {}}, {name: grown, change: func(p *scenario) { p.hold = 1000 }},
		}},
		{name: "delta", about: "allocations of a streamed delta, by a Go benchmark", other: deltaAllocs},
		{name: "issue", about: "IssueSessionKey, c=8", other: issueKeys},
		{name: "verify", about: "VerifyKey, c=16", other: verifyKeys},
		{name: "watch", about: "WatchKeys, 200 watchers", other: watchKeys},
		{name: "revoke", about: "keys are revoked while they stream, 64 at once", other: revokeKeys},
		{name: "billing", about: "billing: rows to events, charges leased and settled", other: bill},
		{name: "reports", about: "reports, c=4", other: reports},
		{name: "growrows", about: "2 KB, c=16, with 1,000,000 rows more", body: 2 * kb, clients: 16, spoils: true, extra: true, variants: []variant{
			{name: few, change: func(*scenario) {}}, {name: grown, change: func(*scenario) {}, before: addRows},
		}},
		{name: "keys1m", about: "2 KB, c=16, 1,000,000 keys", body: 2 * kb, clients: 16, spoils: true, extra: true, variants: []variant{
			{name: few, change: func(*scenario) {}},
			{name: grown, change: func(*scenario) {}, before: addKeys},
			{name: "all in use", change: func(p *scenario) { p.keys = keyring.million }, before: func(context.Context, *stand) error { return nil }},
		}},
	}
	for i := range list {
		if list[i].keys == nil {
			list[i].keys = keyring.unlimited
		}
	}
	return list
}

// choose picks scenarios by name or by the beginning of one; without names, the
// standard ones. Of their targets it leaves those that are named, if any are.
func choose(all []scenario, names, targets []string) ([]scenario, error) {
	for i := range all {
		all[i].targets = slices.DeleteFunc(slices.Clone(all[i].targets), func(t string) bool { return len(targets) > 0 && !slices.Contains(targets, t) })
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s scenario) bool { return strings.HasPrefix(s.name, name) }) {
			var known []string
			for _, s := range all {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s scenario) bool {
		if len(names) == 0 {
			return s.extra
		}
		return !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(s.name, name) })
	}), nil
}

// template is what a scenario's requests to a target share.
func (p scenario) template(t *target) *load.Template {
	begin := fmt.Sprintf(`{"model":%q,"max_tokens":1024,`, upstream.Model)
	if p.stream {
		begin += `"stream":true,`
	}
	begin += `"messages":[{"role":"user","content":"`
	const end = `"}]}`
	const text = "Refactor the function so that it returns early, and say why.\\n"
	body := []byte(begin)
	for len(body) < p.body-len(end) {
		body = append(body, text[:min(len(text), max(p.body-len(end)-len(body), 2))]...)
	}
	body = append(body, end...)
	headers := append([]string{
		"Host: " + t.addr, "Accept: application/json", "Content-Type: application/json", "User-Agent: claude-cli/2.0.1 (external, cli)",
		"Anthropic-Version: 2023-06-01", "X-App: cli", fmt.Sprintf("Content-Length: %d", len(body)),
	}, t.headers...)
	return &load.Template{
		Before: []byte("POST /v1/messages HTTP/1.1\r\nX-Api-Key: "),
		After:  []byte("\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"),
		Body:   body, Stream: p.stream, Leave: p.leave, LeaveAfter: 3,
	}
}
