package key

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Bounds of what callers choose. Lengths are in characters.
const (
	longestID   = 200
	longestName = 255 // aliases, models, tags, idempotency keys, status reasons
	mostModels  = 500
	mostTags    = 100
	mostAliases = 100
	mostAllowed = 100      // networks, and routes
	mostNamed   = 1000     // ids, aliases or tokens in one revocation
	maxMetadata = 64 << 10 // bytes of JSON
)

// needText refuses what is not 1 to longest printable characters.
func needText(name, s string, longest int) error {
	if s == "" {
		return fault.Errorf(fault.Invalid, "%s is required", name)
	}
	return checkText(name, s, longest)
}

// checkText refuses what is not up to longest printable characters.
func checkText(name, s string, longest int) error {
	if utf8.RuneCountInString(s) > longest {
		return fault.Errorf(fault.Invalid, "%s has at most %d characters", name, longest)
	}
	if !utf8.ValidString(s) {
		return fault.Errorf(fault.Invalid, "%s is not valid UTF-8", name)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fault.Errorf(fault.Invalid, "%s has a character that cannot be printed: %q", name, r)
		}
	}
	return nil
}

// checkList refuses too many values, and values that needText refuses.
func checkList(name string, values []string, most int) error {
	if len(values) > most {
		return fault.Errorf(fault.Invalid, "%s has at most %d entries", name, most)
	}
	for _, v := range values {
		if err := needText("an entry of "+name, v, longestName); err != nil {
			return err
		}
	}
	return nil
}

// checkAliases refuses too many names, and names that needText refuses.
func checkAliases(aliases map[string]string) error {
	if len(aliases) > mostAliases {
		return fault.Errorf(fault.Invalid, "aliases has at most %d entries", mostAliases)
	}
	for name, model := range aliases {
		if err := needText("a name in aliases", name, longestName); err != nil {
			return err
		}
		if err := needText("the model of an alias", model, longestName); err != nil {
			return err
		}
	}
	return nil
}

// checkNetworks refuses what is neither a network nor an address.
func checkNetworks(cidrs []string) error {
	if err := checkList("allowed_cidrs", cidrs, mostAllowed); err != nil {
		return err
	}
	for _, text := range cidrs {
		if _, err := network(text); err != nil {
			return fault.Errorf(fault.Invalid, "allowed_cidrs: %q is not a network such as 10.0.0.0/8 or 2001:db8::/32", text)
		}
	}
	return nil
}

// network reads a network; an address is a network of its own. An IPv4 network
// inside IPv6 would never hold the IPv4 address of a client.
func network(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(text); err == nil {
			p = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		}
		if addr.Zone() != "" {
			err = errors.New("an address that means something on one host only")
		}
	}
	if err == nil && p.Addr().Is4In6() {
		err = errors.New("an address that no client has")
	}
	return p.Masked(), err
}

// networks are the given ones, which must be valid, in their plain form.
func networks(cidrs []string) []string {
	out := list(cidrs)
	for i, text := range out {
		if p, err := network(text); err == nil {
			out[i] = p.String()
		}
	}
	return out
}

// checkRoutes refuses what is neither a path, which may end in an asterisk, nor
// the name of one of LiteLLM's groups of routes.
func checkRoutes(routes []string) error {
	if err := checkList("allowed_routes", routes, mostAllowed); err != nil {
		return err
	}
	for _, r := range routes {
		path := strings.HasPrefix(r, "/") && !strings.ContainsAny(strings.TrimSuffix(r, "*"), "*?#")
		group := strings.Trim(r, "abcdefghijklmnopqrstuvwxyz_") == ""
		if !path && !group {
			return fault.Errorf(fault.Invalid,
				"allowed_routes: %q is neither a path such as /v1/messages or /v1/models/* nor a group such as llm_api_routes", r)
		}
	}
	return nil
}

// checkMetadata refuses what is no JSON object of bounded size. Postgres cannot
// hold the character U+0000 in JSON.
func checkMetadata(m json.RawMessage) error {
	if len(m) > maxMetadata {
		return fault.Errorf(fault.Invalid, "metadata has at most %d bytes of JSON", maxMetadata)
	}
	if len(m) == 0 {
		return nil
	}
	if m[0] != '{' || !json.Valid(m) {
		return fault.Errorf(fault.Invalid, "metadata is not a JSON object")
	}
	escapes := bytes.ReplaceAll(m, []byte(`\\`), nil) // what is left of a backslash begins an escape
	if bytes.Contains(escapes, []byte(`\u0000`)) {
		return fault.Errorf(fault.Invalid, "metadata cannot hold the character U+0000")
	}
	return nil
}

// validate checks everything but the duration's arithmetic, which needs a time.
func (a Attributes) validate() error {
	for _, err := range []error{
		checkText("key_alias", a.KeyAlias, longestName),
		checkText("team_id", a.TeamID, longestID),
		checkText("user_id", a.UserID, longestID),
		checkList("models", a.Models, mostModels),
		checkList("tags", a.Tags, mostTags),
		checkAliases(a.Aliases),
		checkNetworks(a.AllowedCIDRs),
		checkRoutes(a.AllowedRoutes),
		a.Limits.validate(),
		checkMetadata(a.Metadata),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}
