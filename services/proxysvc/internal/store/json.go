package store

import (
	"strconv"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// tags is a JSON array of cleaned texts.
func tags(t []string) string {
	buf := []byte{'['}
	for i, tag := range t {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = quote(buf, tag)
	}
	return string(append(buf, ']'))
}

// texts is a JSON object of cleaned texts.
func texts(m map[string]string) string {
	buf := []byte{'{'}
	for name, v := range m {
		buf = quote(append(quote(comma(buf), name), ':'), v)
	}
	return string(append(buf, '}'))
}

// amounts is a JSON object of nano-dollars.
func amounts(m map[string]money.NanoUSD) string {
	buf := []byte{'{'}
	for name, v := range m {
		buf = strconv.AppendInt(append(quote(comma(buf), name), ':'), int64(v), 10)
	}
	return string(append(buf, '}'))
}

// comma goes before all fields but the first.
func comma(buf []byte) []byte {
	if len(buf) > 1 {
		buf = append(buf, ',')
	}
	return buf
}

// quote appends a text, cleaned, as a JSON string.
func quote(buf []byte, s string) []byte { return ledger.AppendQuoted(buf, clean(s)) }
