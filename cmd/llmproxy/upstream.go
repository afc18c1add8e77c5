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

// upstreams decides who answers for Anthropic and Autumn: the real ones when
// their keys are set, our simulators otherwise. A base URL without a key goes to
// whatever stands there, with a key that means nothing.
func (s *starter) upstreams(common map[string]string) error {
	const noKey = "sk-none"
	base, key := s.env("ANTHROPIC_API_BASE"), s.env("ANTHROPIC_API_KEY")
	switch {
	case base != "":
		s.real.anthropic = true
		s.ready.AnthropicURL = base
		if key == "" {
			common["ANTHROPIC_API_KEY"] = noKey
		}
	case key != "":
		s.real.anthropic = true
		s.ready.AnthropicURL = "https://api.anthropic.com"
	default:
		key := "sk-ant-sim-" + rand.Text()
		url, err := s.simulator("anthropic", anthropic.New(anthropic.Options{APIKey: key, ChunkDelay: 15 * time.Millisecond}))
		if err != nil {
			return err
		}
		s.ready.AnthropicURL, common["ANTHROPIC_API_BASE"], common["ANTHROPIC_API_KEY"] = url, url, key
	}
	base, key = s.env("AUTUMN_API_URL"), s.env("AUTUMN_API_KEY")
	switch {
	case base != "":
		s.real.autumn = true
		s.ready.AutumnURL = base
		if key == "" {
			common["AUTUMN_API_KEY"] = noKey
		}
	case key != "":
		s.real.autumn = true
		s.ready.AutumnURL = "https://api.useautumn.com"
	default:
		key := "am_sk_test_" + rand.Text()
		// 10,000 credits are $100: enough to watch them go.
		server := autumn.New(autumn.Options{SecretKey: key, DefaultGrant: 10_000})
		if err := server.Keep(filepath.Join(s.dir, "autumn.json")); err != nil {
			return err // the books in the database go on, so must its balances
		}
		url, err := s.simulator("autumn", server)
		if err != nil {
			return err
		}
		s.ready.AutumnURL, common["AUTUMN_API_URL"], common["AUTUMN_API_KEY"] = url, url, key
	}
	return nil
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
