// Package llmproxy is the gateway's client of LLM Proxy: it gives sessions their
// virtual keys, makes teams, ends keys and sessions, and lists what was spent. It
// speaks REST and needs nothing but the standard library.
//
// Without a proxy's URL, and unless one is required, it is in direct mode: a
// session then gets the real key of Anthropic.
package llmproxy
