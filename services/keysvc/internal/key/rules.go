package key

import (
	"bytes"
	"encoding/json"
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
		a.Limits.validate(),
		checkMetadata(a.Metadata),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}
