package virtualkey

import (
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// FuzzValid finds no text that is valid and is not of the form of a key, and no
// neighbour of a valid one that is valid too.
func FuzzValid(f *testing.F) {
	for _, s := range []string{"", "sk-", New().Reveal(), "sk-ant-api03-x", "sk-" + strings.Repeat("0", 49), strings.Repeat("é", 26)} {
		f.Add(s, 7)
	}
	f.Fuzz(func(t *testing.T, s string, at int) {
		if n := Name(secret.New(s)); len(n) > len(Prefix)+3+4 {
			t.Errorf("Name shows %d characters", len(n))
		}
		if len(Token(s)) != 64 {
			t.Errorf("Token(%q) is no SHA-256", s)
		}
		// What is made of any text with its checksum is a key only in its form.
		whole := s + checksum(s)
		formed := len(whole) == length && strings.HasPrefix(whole, Prefix)
		if Valid(whole) != formed {
			t.Errorf("Valid(%q) = %v, want %v", whole, !formed, formed)
		}
		if formed {
			changed := []byte(whole)
			changed[len(Prefix)+int(uint(at)%(body+sum))] ^= 1
			if Valid(string(changed)) {
				t.Errorf("%q and its neighbour are valid", whole)
			}
		}
	})
}
