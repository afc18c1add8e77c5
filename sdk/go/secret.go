package llmproxy

import (
	"regexp"
	"strings"
)

// hidden is what is printed in place of a secret.
const hidden = "[secret]"

// Secret is a credential that no formatting verb, encoder or logger shows.
// Convert it to a string to use it.
type Secret string

// String hides the secret.
func (s Secret) String() string { return hidden }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return hidden }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// keyLike is what looks like a virtual key, or like one of Anthropic's.
var keyLike = regexp.MustCompile(`\bsk-[A-Za-z0-9_-]{8,}`)

// redact takes credentials out of a text that another side wrote.
func redact(text string, secrets ...Secret) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, string(s), hidden)
		}
	}
	return keyLike.ReplaceAllString(text, hidden)
}
