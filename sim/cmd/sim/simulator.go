package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
	"github.com/proliferate-ai/llm-proxy/sim/openai"
	"github.com/proliferate-ai/llm-proxy/sim/stripe"
)

// mostCredits bounds SIM_GRANT far below what an amount can hold.
const mostCredits = 100_000_000

// simulator makes the handler of the vendor that is named.
func simulator(name string, getenv func(string) string) (http.Handler, error) {
	switch name {
	case "anthropic":
		delay, err := chunkDelay(getenv)
		if err != nil {
			return nil, err
		}
		return withHealth(anthropic.New(anthropic.Options{APIKey: getenv("ANTHROPIC_API_KEY"), ChunkDelay: delay})), nil
	case "openai":
		delay, err := chunkDelay(getenv)
		if err != nil {
			return nil, err
		}
		return withHealth(openai.New(openai.Options{APIKey: getenv("OPENAI_API_KEY"), ChunkDelay: delay})), nil
	case "autumn":
		text := or(getenv("SIM_GRANT"), "10000")
		grant, err := strconv.ParseInt(text, 10, 64)
		if err != nil || grant < 0 || grant > mostCredits {
			return nil, fmt.Errorf("SIM_GRANT: %q is not a whole number from 0 to %d", text, mostCredits)
		}
		return withHealth(autumn.New(autumn.Options{SecretKey: getenv("AUTUMN_API_KEY"), DefaultGrant: grant, Card: autumn.CardGood})), nil
	case "stripe":
		return withHealth(stripe.New(stripe.Options{SecretKey: getenv("STRIPE_API_KEY"), PerSecond: 1000})), nil
	}
	return nil, fmt.Errorf("there is no simulator of %q: anthropic, openai, autumn or stripe", name)
}

func chunkDelay(getenv func(string) string) (time.Duration, error) {
	text := or(getenv("SIM_CHUNK_DELAY"), "15ms")
	delay, err := time.ParseDuration(text)
	if err != nil || delay < 0 {
		return 0, fmt.Errorf("SIM_CHUNK_DELAY: %q is not a duration such as 15ms", text)
	}
	return delay, nil
}

func or(value, def string) string {
	if value == "" {
		return def
	}
	return value
}

// withHealth answers GET /healthz, which no vendor has, for health checks.
func withHealth(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.Handle("/", h)
	return mux
}
