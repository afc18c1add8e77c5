package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// vendor is one of the two that the suite calls.
type vendor struct {
	name            string
	baseVar, keyVar string // its variables
	own             string // its own API
	// simulate makes its simulator, which takes one key only.
	simulate func(key string) (http.Handler, error)
	prefix   string // of its keys
}

// upstreams decides who answers for Anthropic and Autumn.
func (s *starter) upstreams(common map[string]string) (err error) {
	s.ready.AnthropicURL, s.anthropicIs, err = s.upstream(common, vendor{
		name: "anthropic", baseVar: "ANTHROPIC_API_BASE", keyVar: "ANTHROPIC_API_KEY", own: "https://api.anthropic.com", prefix: "sk-ant-sim-",
		simulate: func(key string) (http.Handler, error) {
			return anthropic.New(anthropic.Options{APIKey: key, ChunkDelay: 15 * time.Millisecond}), nil
		},
	})
	if err != nil {
		return err
	}
	s.ready.AutumnURL, s.autumnIs, err = s.upstream(common, vendor{
		name: "autumn", baseVar: "AUTUMN_API_URL", keyVar: "AUTUMN_API_KEY", own: "https://api.useautumn.com", prefix: "am_sk_test_",
		simulate: func(key string) (http.Handler, error) {
			// 10,000 credits are $100: enough to watch them go. The books in the
			// database go on after a restart, so must the balances.
			server := autumn.New(autumn.Options{SecretKey: key, DefaultGrant: 10_000})
			return server, server.Keep(filepath.Join(s.dir, "autumn.json"))
		},
	})
	return err
}

// upstream decides who answers for a vendor, and says it for people: whatever
// stands at the base URL that is given, with a key that means nothing if none is
// given; the real one if its key is; our simulator otherwise.
func (s *starter) upstream(common map[string]string, v vendor) (url, is string, err error) {
	base, key := s.env(v.baseVar), s.env(v.keyVar)
	if base != "" {
		if key == "" {
			common[v.keyVar] = v.prefix + "none"
		}
		return base, "as " + v.baseVar + " says", nil
	}
	if key != "" {
		return v.own, "REAL: it costs money", nil
	}
	key = v.prefix + rand.Text()
	handler, err := v.simulate(key)
	if err != nil {
		return "", "", err
	}
	if url, err = s.simulator(v.name, handler); err != nil {
		return "", "", err
	}
	common[v.baseVar], common[v.keyVar] = url, key
	return url, "SIMULATED; set " + v.keyVar + " for the real one", nil
}

// simulator serves a vendor's simulator on a free port of the loopback address.
func (s *starter) simulator(name string, h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start the simulator of %s: %w", name, err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l) //nolint:errcheck // it ends with Close
	s.stops = append(s.stops, server.Close)
	return "http://" + l.Addr().String(), nil
}
