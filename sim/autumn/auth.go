package autumn

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// authenticate checks the authorization header. A publishable key (am_pk_) is
// treated as unknown, as no route here takes one.
func (s *Server) authenticate(authorization string) error {
	key, isBearer := strings.CutPrefix(authorization, "Bearer ")
	switch {
	case !isBearer || key == "":
		return errorf(http.StatusUnauthorized, "no_secret_key", "No secret key found in Authorization header")
	case !strings.HasPrefix(key, "am_sk_") && !strings.HasPrefix(key, "am_pk_"):
		return errorf(http.StatusUnauthorized, "invalid_request", "Invalid secret key format")
	case !s.isKey(key):
		return errorf(http.StatusUnauthorized, "invalid_secret_key", "Invalid secret key: %s", masked(key))
	}
	return nil
}

func (s *Server) isKey(key string) bool {
	if s.opts.SecretKey == "" {
		return strings.HasPrefix(key, "am_sk_")
	}
	return subtle.ConstantTimeCompare([]byte(key), []byte(s.opts.SecretKey)) == 1
}

// masked shows the prefix of a key and nothing of its secret.
func masked(key string) string { return key[:len("am_sk_")] + "****" }

// version is an API version; later ones compare greater.
type version int

const (
	v12 version = iota
	v21
	v22
	v23
)

// versions maps what clients may send: SemVer and CalVer.
var versions = map[string]version{
	"1.2": v12, "2025-05-05": v12,
	"2.1.0": v21, "2026-03-17": v21,
	"2.2.0": v22, "2026-03-18": v22,
	"2.3.0": v23, "2026-05-13": v23,
}

// parseVersion reads x-api-version. At Autumn a missing header means the version
// of the day the organisation signed up; here it is always the oldest, so that
// clients that forget to pin it notice.
func parseVersion(header string) (version, error) {
	if header == "" {
		return v12, nil
	}
	v, ok := versions[header]
	if !ok {
		return 0, errorf(http.StatusBadRequest, "invalid_api_version", "Invalid API version: %s", header)
	}
	return v, nil
}
