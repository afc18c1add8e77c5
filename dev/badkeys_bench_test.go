package dev

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// firsts is how many keys of a kind are asked for once, before the proxy has ever
// seen them.
const firsts = 200

// BenchmarkBadKeys measures what a client can: how long the 401 takes for keys that
// are bad for different reasons, in turn, over HTTP, against keysvc and Postgres. It
// prints the median of each kind and its ratio to that of no key. What a kind costs
// when the key is new to the proxy stands apart. It shows and fails nothing: times are
// of one machine and one moment. What can be held to are the look-ups, one for a new
// key with a right checksum and none else (TestBadKeysCostTheSameLookUps of proxysvc's
// package keys), and the answer's bytes (TestEveryBadKeyGetsTheSameAnswer).
func BenchmarkBadKeys(b *testing.B) {
	s := newSuite(b)
	s.env["LOG_LEVEL"] = "error"
	keysvc := s.start("keysvc")
	url := "http://" + s.start("proxysvc").http + "/v1/messages"
	keys := keysv1.NewKeyServiceClient(keysvc.dial(b))
	issue := func(team, duration string, n int) (out []string) {
		for i := range n {
			resp, err := keys.IssueSessionKey(b.Context(), &keysv1.IssueSessionKeyRequest{UserId: fmt.Sprint(team, i), TeamId: team, Duration: duration})
			if err != nil {
				b.Fatal(err)
			}
			out = append(out, resp.GetSecret())
		}
		return out
	}
	expired, revoked := issue("expired", "1s", firsts+1), issue("revoked", "1h", firsts+1)
	if _, err := keys.RevokeKeys(b.Context(), &keysv1.RevokeKeysRequest{TeamId: "revoked"}); err != nil {
		b.Fatal(err)
	}
	poll(b, func() bool { return refusal(b, url, expired[firsts]) > 0 })
	unknown := virtualkey.New().Reveal()
	kinds := []struct {
		name string
		key  func(round int) string
		once bool // each key is asked for once, firsts of them
	}{
		{"missing", func(int) string { return "" }, false},
		{"malformed", func(int) string { return "hello" }, false},
		{"mistyped", func(int) string { return "sk-" + strings.Repeat("a", 49) }, false},
		{"unknown", func(int) string { return unknown }, false},
		{"expired", func(int) string { return expired[firsts] }, false},
		{"revoked", func(int) string { return revoked[firsts] }, false},
		{"unknown-first", func(int) string { return virtualkey.New().Reveal() }, true},
		{"expired-first", func(n int) string { return expired[n] }, true},
		{"revoked-first", func(n int) string { return revoked[n] }, true},
	}
	took := map[string][]time.Duration{}
	round := 0
	for b.Loop() {
		for _, k := range kinds {
			if k.once && round >= firsts {
				continue
			}
			took[k.name] = append(took[k.name], refusal(b, url, k.key(round)))
		}
		round++
	}
	none := median(took["missing"])
	for _, k := range kinds {
		p50 := median(took[k.name])
		b.Logf("%-14s p50 %8s  ratio %.2f  of %d", k.name, p50.Round(time.Microsecond), float64(p50)/float64(none), len(took[k.name]))
	}
}

// refusal asks with a key and returns how long the 401 took; 0: it was another answer.
func refusal(b *testing.B, url, key string) time.Duration {
	b.Helper()
	began := time.Now()
	resp := call(b, http.MethodPost, url, key, hello)
	_, err := io.Copy(io.Discard, resp.Body)
	took := time.Since(began)
	resp.Body.Close()
	if err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != http.StatusUnauthorized {
		return 0
	}
	return took
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}
