// Package secret holds values that must never be shown. A String prints,
// logs and marshals as a fixed mask, whatever verb or encoder is used.
package secret

import "crypto/subtle"

// Mask is what every printed secret looks like.
const Mask = "[secret]"

// String is a secret text.
type String struct{ value string }

// New hides s.
func New(s string) String { return String{s} }

// Reveal returns the text. Call it only where the secret leaves for the system
// it belongs to.
func (s String) Reveal() string { return s.value }

// Empty says whether there is no secret.
func (s String) Empty() bool { return s.value == "" }

// Equal compares in constant time.
func (s String) Equal(other string) bool {
	return subtle.ConstantTimeCompare([]byte(s.value), []byte(other)) == 1
}

// String returns the mask.
func (s String) String() string { return Mask }

// GoString returns the mask, for %#v.
func (s String) GoString() string { return Mask }

// MarshalText returns the mask, for JSON, YAML and loggers.
func (s String) MarshalText() ([]byte, error) { return []byte(Mask), nil }
