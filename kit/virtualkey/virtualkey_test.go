package virtualkey

import (
	"strings"
	"testing"
)

func TestNewKeysAreValidAndDiffer(t *testing.T) {
	t.Parallel()
	a, b := New(), New()
	if !Valid(a.Reveal()) || !Valid(b.Reveal()) || a == b {
		t.Errorf("two new keys: valid %v %v, equal %v", Valid(a.Reveal()), Valid(b.Reveal()), a == b)
	}
	if name := Name(a); len(name) != 10 || !strings.HasPrefix(name, "sk-...") {
		t.Errorf("Name = %q, want sk-... and four characters", name)
	}
}

func TestAnyChangedCharacterIsNoticed(t *testing.T) {
	t.Parallel()
	key := New().Reveal()
	for i := range key {
		changed := []byte(key)
		changed[i] ^= 1
		if Valid(string(changed)) {
			t.Errorf("a key with character %d changed is valid", i)
		}
	}
	for _, bad := range []string{"", "sk-", key + "x", key[1:], "sk-ant-api03-" + key} {
		if Valid(bad) {
			t.Errorf("a text of length %d that is no key is valid", len(bad))
		}
	}
}

func TestTokenIsTheSHA256(t *testing.T) {
	t.Parallel()
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, "abc"
	if got := Token("abc"); got != want {
		t.Errorf("Token = %s, want %s", got, want)
	}
}
