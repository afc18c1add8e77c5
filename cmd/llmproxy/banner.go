package main

import "fmt"

// banner says what runs and how to use it, in at most 20 lines.
func (s *starter) banner() {
	fmt.Fprintf(s.out, `LLM Proxy is running. Ctrl-C drains and stops it.
  proxy       %[1]s  (REST: /openapi.json)
  master key  %[2]s
  anthropic   %[3]s  (%[7]s)
  autumn      %[4]s  (%[8]s)
  postgres    %[5]s
  data, logs  %[6]s
1. Issue a key:
  KEY=$(curl -s %[1]s/key/generate -H 'authorization: Bearer %[2]s' -d '{"team_id":"acme","user_id":"session-1","duration":"24h","max_budget":5}' | sed 's/.*"key": *"\([^"]*\)".*/\1/')
2. Stream a message:
  curl -N %[1]s/v1/messages -H "x-api-key: $KEY" -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' -d '{"model":"claude-haiku-4-5","max_tokens":300,"stream":true,"messages":[{"role":"user","content":"Hello!"}]}'
3. See its cost:
  curl -s '%[1]s/v1/spend?team_id=acme&page_size=1' -H 'authorization: Bearer %[2]s'
Or all of it, up to Autumn's balance:  go run ./cmd/llmproxy demo
`, s.ready.ProxyURL, s.ready.MasterKey, s.ready.AnthropicURL, s.ready.AutumnURL, masked(s.ready.DatabaseURL), s.dir,
		s.anthropicIs, s.autumnIs)
}
