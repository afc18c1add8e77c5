package proxy

import (
	"net/netip"
	"slices"
	"strings"
)

// mayCall says whether the key's own rules allow a call, and if not why.
func (k *Key) mayCall(c *Call) *Error {
	if len(k.Networks) > 0 && !slices.ContainsFunc(k.Networks, func(p netip.Prefix) bool { return p.Contains(c.From.Unmap()) }) {
		return &Error{Status: 403, Type: "permission_error", Message: "this key may not be used from this address"}
	}
	if len(k.Routes) > 0 && !slices.ContainsFunc(k.Routes, func(r string) bool { return routeAllows(r, c.Path) }) {
		return &Error{Status: 403, Type: "permission_error", Message: "this key may not call " + shown(c.Path)}
	}
	return nil
}

// routeAllows says whether a rule allows a path: a path, one that ends in "*", or
// one of LiteLLM's groups.
func routeAllows(rule, path string) bool {
	switch rule {
	case "llm_api_routes":
		return true // nothing else is served to virtual keys here
	case "info_routes":
		return strings.HasPrefix(path, "/v1/models")
	}
	prefix, wild := strings.CutSuffix(rule, "*")
	return path == rule || wild && strings.HasPrefix(path, prefix)
}
