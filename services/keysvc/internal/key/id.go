package key

import "strings"

const idPrefix = "key_"

// isToken says whether s has the form of a token: 64 lower-case hex digits.
func isToken(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
