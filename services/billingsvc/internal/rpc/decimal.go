package rpc

import "strings"

// roundTo cuts the decimals of a plain decimal number after the n-th. Anything
// else is returned as it is, to be refused by who reads it.
func roundTo(s string, n int) string {
	whole, frac, found := strings.Cut(s, ".")
	if !found || len(frac) <= n || len(frac) > 40 || strings.Trim(frac, "0123456789") != "" {
		return s
	}
	return whole + "." + frac[:n]
}
