// Package virtualkey is the format of virtual keys, shared by the service that
// makes them and the one that takes them: "sk-", 43 characters of base62 that
// carry 256 random bits, and a 6-character checksum, so that a mistyped or
// made-up key is refused without a look-up.
package virtualkey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

const (
	// Prefix starts every key; LiteLLM's clients check for it.
	Prefix   = "sk-"
	body     = 43 // base62 digits that hold 256 bits
	sum      = 6  // base62 digits that hold 32 bits
	length   = len(Prefix) + body + sum
	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// New makes a key.
func New() secret.String {
	var raw [32]byte
	rand.Read(raw[:]) // crypto/rand.Read never fails; it ends the program instead
	text := Prefix + base62(new(big.Int).SetBytes(raw[:]), body)
	return secret.New(text + checksum(text))
}

// Valid says whether s has the form of a key and its checksum is right. It does
// not say whether the key exists.
func Valid(s string) bool {
	if len(s) != length || !strings.HasPrefix(s, Prefix) {
		return false
	}
	return checksum(s[:length-sum]) == s[length-sum:]
}

// Token returns the lower-case hex SHA-256 of a key: what is stored, and
// LiteLLM's `token`.
func Token(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// Name returns the form that people may see: "sk-..." and the last four
// characters, LiteLLM's `key_name`.
func Name(s secret.String) string {
	text := s.Reveal()
	return Prefix + "..." + text[max(0, len(text)-4):]
}

func checksum(text string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(text)))
	return base62(new(big.Int).SetBytes(b[:]), sum)
}

func base62(n *big.Int, digits int) string {
	out := make([]byte, digits)
	base, rem := big.NewInt(int64(len(alphabet))), new(big.Int)
	for i := digits - 1; i >= 0; i-- {
		n.DivMod(n, base, rem)
		out[i] = alphabet[rem.Int64()]
	}
	return string(out)
}
